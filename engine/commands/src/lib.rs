//! cairn-commands
