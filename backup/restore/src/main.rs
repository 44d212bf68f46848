//! cairn-restore
fn main() {}
