"""Every script that a test in this folder runs may only touch the keys that it declares."""

import pytest

from scanning.adapters.redis import scripts

# Put before a script, it stands between the script and Redis.
GUARD = """
local declared, real = {}, redis
for _, key in ipairs(KEYS) do declared[key] = true end
local function check(command, ...)
  local keys = {(...)}
  if command == 'TIME' then keys = {} end
  if command == 'DEL' or command == 'UNLINK' then keys = {...} end
  for _, key in ipairs(keys) do
    if not declared[key] then error('undeclared key ' .. tostring(key)) end
  end
end
local redis = setmetatable({
  call = function(...) check(...) return real.call(...) end,
  pcall = function(...) check(...) return real.pcall(...) end,
}, {__index = real})
"""


@pytest.fixture(autouse=True)
def _undeclared_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = scripts.source
    monkeypatch.setattr(scripts, "source", lambda name: GUARD + source(name))
