-- Items held twice for one kind; for two kinds they may be, as configured.
SELECT item || ' (' || kind || ')' FROM locks GROUP BY item, kind HAVING count(*) > 1;
