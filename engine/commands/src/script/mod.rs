//! Lua scripts and function libraries: <https://redis.io/docs/latest/develop/programmability/>
//!
//! A script runs where its command runs, under the locks of the keys it declares; what it touches beyond those is locked
//! as it goes (see [`run`]). Its writes are effects like any others, committed together when it ends. Each thread keeps
//! interpreters of its own, with what it has compiled; sources and libraries are shared.
//!
//! A script that runs on is noticed by a hook that the interpreter calls every hundred thousand instructions: the thread's
//! other work is then handed to another thread, and nobody waits for the script's locks on a thread that serves others.

mod bit;
mod cjson;
mod cmsgpack;
mod current;
mod interpreter;
mod json_decode;
mod library;
mod number;
mod raise;
mod redis_api;
mod registry;
mod reply;
mod run;
mod shebang;
mod structs;

pub use library::load_library;
pub use registry::Scripts;

pub(crate) use interpreter::{compile, forget_compiled, with_functions, with_scripts};
pub(crate) use library::{extract, register};
pub(crate) use registry::{BUSY_SCRIPT, Sha, sha_of};
pub(crate) use run::{Invocation, execute};
pub(crate) use shebang::ScriptFlags;

use cairn_keyspace::Keyspace;

use crate::spec::CommandSpec;

/// Whether a command runs a script whose source says that it writes nothing.
pub(crate) fn says_it_only_reads(
    spec: &CommandSpec,
    args: &[&[u8]],
    scripts: &Scripts,
    keyspace: &Keyspace,
) -> bool {
    let says =
        |body: &[u8]| shebang::of_script(body).is_ok_and(|(flags, _)| flags.has(ScriptFlags::NO_WRITES));
    match spec.name {
        "eval" => says(args[1]),
        "evalsha" => {
            let sha = Sha::try_from(args[1]).map(|sha| sha.map(|byte| byte.to_ascii_lowercase()));
            sha.ok().and_then(|sha| scripts.source(&sha)).is_some_and(|body| says(&body))
        }
        "fcall" => {
            let libraries = keyspace.libraries.get();
            let mut functions = libraries.values().flat_map(|library| &library.functions);
            let found = functions.find(|function| function.name.as_bytes().eq_ignore_ascii_case(args[1]));
            found.is_some_and(|function| ScriptFlags(function.flags).has(ScriptFlags::NO_WRITES))
        }
        _ => false,
    }
}

/// Whether this command runs a script, which may call any other.
pub(crate) fn runs_script(spec: &CommandSpec) -> bool {
    matches!(spec.name, "eval" | "evalsha" | "eval_ro" | "evalsha_ro" | "fcall" | "fcall_ro")
}
