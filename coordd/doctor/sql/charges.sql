-- Windows charged with fewer calls than the permits that are not settled yet may make.
WITH held (limit_name, calls) AS (
    SELECT 'limit/' || endpoint, sum(count) FROM permits GROUP BY endpoint
), charged (limit_name, window_ns, calls) AS (
    SELECT limit_name, window_ns, sum(count) FROM cells GROUP BY limit_name, window_ns
)
SELECT limit_name || ' of ' || window_ns / 1000000000 || ' s: ' || held.calls || ' > ' || charged.calls
FROM held JOIN charged USING (limit_name) WHERE held.calls > charged.calls;
