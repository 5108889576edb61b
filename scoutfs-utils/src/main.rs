//! Head to be written.
fn main() {}
