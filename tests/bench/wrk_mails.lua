-- wrk's script: POST the mails of a folder in turns, as message/rfc822; one JSON line at the end.
-- wrk -t1 -c32 -d10s --latency -s wrk_mails.lua URL/v1/classify/raw -- FOLDER COUNT
-- The folder has files 0 to COUNT - 1.

local threads = {}
local requests = {}
local turn = 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local headers = { ["Content-Type"] = "message/rfc822" }
  for number = 0, tonumber(args[2]) - 1 do
    local file = assert(io.open(args[1] .. "/" .. number, "rb"))
    table.insert(requests, wrk.format("POST", nil, headers, file:read("*a")))
    file:close()
  end
  ok, refused, failed = 0, 0, 0
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function response(status, headers, body)
  if status == 200 then ok = ok + 1
  elseif status == 429 then refused = refused + 1
  else failed = failed + 1 end
end

function done(summary, latency, all)
  local sums = { ok = 0, refused = 0, failed = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  local broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '{"seconds": %.3f, "ok": %d, "refused": %d, "failed": %d, "broken": %d, ' ..
    '"p50_ms": %.2f, "p90_ms": %.2f, "p99_ms": %.2f, "max_ms": %.2f}\n',
    summary.duration / 1e6, sums.ok, sums.refused, sums.failed, broken,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3))
end
