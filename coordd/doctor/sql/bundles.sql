-- Bundles of which nothing is live: they end with the last of their members.
WITH live (id) AS (
    SELECT token FROM locks UNION ALL SELECT id FROM reservations UNION ALL SELECT id FROM permits
)
SELECT id FROM bundles WHERE NOT EXISTS (
    SELECT 1 FROM json_each(iif(json_valid(members), members, '[]')) WHERE value IN (SELECT live.id FROM live)
);
