// SPDX-License-Identifier: GPL-2.0-only
//! Structure descriptions, and the hash of all of them.
//!
//! [`layout!`] defines a struct and, beside it, a description of the names, types, offsets and sizes of its
//! fields. [`FORMAT_HASH`](crate::FORMAT_HASH) is computed from the descriptions at compile time, so a moved
//! field changes the hash and a comment does not.

/// One field of a described structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// The field's type as written.
    pub ty: &'static str,
    /// Byte offset in the structure.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// The description of one structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The structure's name.
    pub name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Its fields in order.
    pub fields: &'static [Field],
}

/// A constant that is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constant {
    /// The constant's name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
}

/// A structure that is on disk, on the wire or in an ioctl.
pub trait Described {
    /// What it looks like.
    const LAYOUT: Layout;
}

/// Defines a `repr(C)` structure without padding, with zerocopy's traits and its [`Layout`].
macro_rules! layout {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(C)]
        // Fields named `pad` and those whose name says it all need no words.
        #[allow(missing_docs)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field : $ty ),*
        }

        impl $crate::layout::Described for $name {
            const LAYOUT: $crate::layout::Layout = $crate::layout::Layout {
                name: stringify!($name),
                size: core::mem::size_of::<$name>(),
                fields: &[
                    $( $crate::layout::Field {
                        name: stringify!($field),
                        ty: stringify!($ty),
                        offset: core::mem::offset_of!($name, $field),
                        size: {
                            const fn size_of_field<T>(_: fn(&$name) -> &T) -> usize {
                                core::mem::size_of::<T>()
                            }
                            size_of_field::<$ty>(|s| &s.$field)
                        },
                    } ),*
                ],
            };
        }

        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    )*};
}
pub(crate) use layout;

/// Defines public constants and collects them as part of the format.
macro_rules! constants {
    ($list:ident: $( $(#[$meta:meta])* pub const $name:ident : $ty:ty = $value:expr; )*) => {
        $( $(#[$meta])* pub const $name: $ty = $value; )*
        /// The constants of this module that are part of the format hash.
        pub const $list: &[$crate::layout::Constant] = &[
            $( $crate::layout::Constant { name: stringify!($name), value: $name as u64 } ),*
        ];
    };
}
pub(crate) use constants;

/// FNV-1a, 64 bits, as a resumable constant function.
#[derive(Clone, Copy)]
pub struct Fnv(pub u64);

impl Fnv {
    /// The empty hash.
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self.0 = (self.0 ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            i += 1;
        }
        self
    }

    /// Adds a string and an end mark, so that neighbours cannot run together.
    pub const fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes()).bytes(&[0xff])
    }

    /// Adds a number.
    pub const fn number(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    /// Adds a structure's description.
    pub const fn layout(mut self, layout: &Layout) -> Self {
        self = self.text(layout.name).number(layout.size as u64);
        let mut i = 0;
        while i < layout.fields.len() {
            let f = &layout.fields[i];
            self = self.text(f.name).text(f.ty).number(f.offset as u64).number(f.size as u64);
            i += 1;
        }
        self
    }

    /// Adds constants.
    pub const fn constants(mut self, list: &[Constant]) -> Self {
        let mut i = 0;
        while i < list.len() {
            self = self.text(list[i].name).number(list[i].value);
            i += 1;
        }
        self
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self::new()
    }
}
