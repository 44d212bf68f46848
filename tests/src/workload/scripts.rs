//! Scripts and functions.

use super::{Template, exact};

/// What `$0`, `$1`, … stand for.
pub(super) const SCRIPTS: [&str; 9] = [
    "redis.call('set', KEYS[1], ARGV[1]) return redis.call('get', KEYS[1])",
    "return {redis.call('type', KEYS[1]), redis.pcall('incr', KEYS[1]), redis.pcall('get', KEYS[2])}",
    "return {1, 2.7, 'three', {4, {5}}, true, false, {ok='fine'}, nil, 6}",
    "local n = tonumber(ARGV[1]) if n < 0 then return redis.error_reply('MINE below zero') end return n * 3",
    "redis.call('hset', KEYS[1], ARGV[1], ARGV[2]) return redis.call('hlen', KEYS[1])",
    "redis.call('rpush', KEYS[1], 'a', 'b') error('stopped half way')",
    "return redis.call('nosuchcommand')",
    "return redis.call('exists', KEYS[1])",
    "#!lua name=model\nredis.register_function('bump', function(keys, args) return redis.call('incrby', keys[1], args[1]) end)\n\
     redis.register_function{function_name='look', callback=function(keys) return redis.call('exists', keys[1]) end, \
     flags={'no-writes'}}",
];

pub(super) const TEMPLATES: &[Template] = &[
    exact("EVAL $0 1 k v"),
    exact("EVAL $1 2 k k"),
    exact("EVAL $2 0"),
    exact("EVAL $3 0 n"),
    exact("EVAL $4 1 k f v"),
    exact("EVAL $5 1 k"),
    exact("EVAL $6 0"),
    exact("EVAL $7 1 k"),
    exact("EVAL $0 2 k"),
    exact("EVAL $0 -1"),
    exact("EVAL_RO $0 1 k v"),
    exact("EVAL_RO $7 1 k"),
    exact("EVALSHA 0123456789abcdef0123456789abcdef01234567 0"),
    exact("SCRIPT EXISTS 0123456789abcdef0123456789abcdef01234567"),
    exact("FUNCTION LOAD $8"),
    exact("FUNCTION LOAD REPLACE $8"),
    exact("FUNCTION LOAD REPLACE $8"),
    exact("FUNCTION LOAD REPLACE $8"),
    exact("FCALL bump 1 k n"),
    exact("FCALL_RO look 1 k"),
    exact("FCALL_RO bump 1 k n"),
    exact("FCALL nosuch 0"),
    exact("FUNCTION DELETE model"),
    exact("GET k"),
    exact("DEL k"),
];
