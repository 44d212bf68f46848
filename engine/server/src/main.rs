//! cairn-server
fn main() {}
