-- Makes the world that scripts see. Runs once in each interpreter, before any script.
--
-- Every table that outlives a script stands behind a proxy: an empty table that reads from the real one and refuses
-- every change. What would reach around a proxy (rawset, next, getmetatable …) is replaced by a function that knows them.
-- What was raised by native code is turned into what a script may see wherever an error can be caught.

local native = ...
local G = _G
local error, next, pairs, pcall, rawget, rawset, select, tonumber, type, unpack, xpcall =
      error, next, pairs, pcall, rawget, rawset, select, tonumber, type, unpack, xpcall
local getmetatable, setmetatable, setfenv, loadstring = getmetatable, setmetatable, setfenv, loadstring
local insert, concat, byte, resume = table.insert, table.concat, string.byte, coroutine.resume
local caught, go_on, handler = native.caught, native.go_on, native.handler
local readonly, denied, missing = native.readonly, native.denied, native.missing

local real = setmetatable({}, { __mode = "k" })
local shown = setmetatable({}, { __mode = "k" })

local function protect(behind, metatable)
  local proxy = setmetatable({}, { __index = behind, __newindex = readonly })
  real[proxy] = behind
  if metatable then
    shown[proxy] = setmetatable({}, { __index = metatable, __newindex = readonly })
    real[shown[proxy]] = metatable
  end
  return proxy
end

local function deny(proxy)
  if real[proxy] then denied() end
end

-- What a failed call gives: a text instead of the table of a failed command, as scripts of older versions expect.
local function flat(ok, ...)
  if ok then return true, ... end
  go_on()
  local what = caught((...))
  if type(what) == "table" and (type(what.err) == "string" or type(what.err) == "number") then
    return false, what.err
  end
  return false, what
end

local function whole(ok, ...)
  if ok then return true, ... end
  go_on()
  return false, caught((...))
end

function G.pcall(...) return flat(pcall(...)) end

function G.xpcall(f, on_error)
  return whole(xpcall(f, function(what)
    go_on()
    return on_error(caught(what))
  end))
end

G.coroutine.resume = function(...) return whole(resume(...)) end

function G.rawset(t, ...)
  deny(t)
  return rawset(t, ...)
end

function G.rawget(t, ...) return rawget(real[t] or t, ...) end

function G.setmetatable(t, ...)
  deny(t)
  return setmetatable(t, ...)
end

local string_shown = {}

function G.getmetatable(...)
  local of = ...
  if real[of] then return shown[of] end
  if type(of) == "string" then return string_shown end
  return getmetatable(...)
end

function G.next(t, ...) return next(real[t] or t, ...) end

function G.pairs(...)
  local t = ...
  local behind = real[t]
  if not behind then return pairs(...) end
  local copy = {}
  for key, value in next, behind do copy[key] = value end
  return next, copy, nil
end

G.table.insert = function(...)
  deny((...))
  return insert(...)
end

-- The language's own does not notice where the number of results overflows, and writes beyond its stack.
function G.unpack(list, from, to)
  local first, last = tonumber(from or 1), tonumber(to or type(list) == "table" and #list)
  if first and last then
    if first > last then return end
    if not (last - first < native.results_max) then error("too many results to unpack", 2) end
  end
  -- Each argument takes the place of a result.
  if to == nil then
    if from == nil then return unpack(list) end
    return unpack(list, from)
  end
  return unpack(list, from, to)
end

-- Only source text is loaded: compiled code could be anything.
function G.loadstring(...)
  local text = ...
  if type(text) == "string" and byte(text, 1) == 27 then
    return nil, "attempt to load a binary chunk"
  end
  return loadstring(...)
end

function G.load(reader, name)
  local parts = {}
  while true do
    local part = reader()
    if part == nil or part == "" then break end
    parts[#parts + 1] = part
  end
  return G.loadstring(concat(parts), name or "=(load)")
end

for _, name in pairs { "dofile", "loadfile", "print", "module", "require", "package", "io", "debug", "getfenv", "setfenv", "newproxy" } do G[name] = nil end
G.os = { clock = native.clock }
G.math.random, G.math.randomseed = native.random, native.randomseed

for _, library in pairs { "bit", "cjson", "cmsgpack", "struct", "redis" } do G[library] = native[library] end
for _, library in pairs { "bit", "cjson", "cmsgpack", "coroutine", "math", "os", "redis", "string", "struct", "table" } do
  G[library] = protect(G[library])
end

string_shown = protect({ __index = G.string })

setmetatable(G, { __index = missing })
local globals_metatable = { __index = missing }
local env = protect(G, globals_metatable)
G._G = env

local world = { env = env }

function world.run(script, keys, args)
  G.KEYS, G.ARGV = keys, args
  return xpcall(script, handler)
end

function world.call(callback, keys, args)
  return xpcall(function() return callback(keys, args) end, handler)
end

-- While a library is loaded, it sees nothing but what it needs to register its functions.
local library_globals = setmetatable(
  { redis = protect(setmetatable(native.library, { __index = missing })) }, { __index = missing })
local env_metatable = getmetatable(env)

function world.load(chunk)
  env_metatable.__index, real[env] = library_globals, library_globals
  local ok, what = xpcall(chunk, handler)
  env_metatable.__index, real[env] = G, G
  return ok, what
end

-- Nothing that scripts can reach has the real globals as its environment.
for _, functions in pairs { G, world, real[G.coroutine], real[G.table] } do
  for _, f in next, functions do
    if type(f) == "function" then pcall(setfenv, f, env) end
  end
end
for _, f in pairs { flat, whole, protect, deny } do setfenv(f, env) end

return world
