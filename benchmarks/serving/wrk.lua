-- Sends the requests of a file one after the other, and says in one line of JSON what came of it.
--
-- The file (benchmarks/serving/wire.py writes it) holds of each request its length, a line break and its bytes: here
-- nothing is put together while the clock runs. wrk's own percentiles are of a closed loop: they say how long an answer
-- took once its request was sent.

local requests = {}
local sent = 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   while true do
      local size = file:read("*n")
      if not size then break end
      file:read(1)
      requests[#requests + 1] = file:read(size)
   end
   file:close()
   assert(#requests > 0, "the file of requests is empty")
end

function request()
   sent = sent % #requests + 1
   return requests[sent]
end

function done(summary, latency, _)
   io.write(string.format(
      '\nwrk.lua: {"requests": %d, "duration_us": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, '
      .. '"refused": %d, "socket_errors": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
      latency.max, summary.errors.status,
      summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
