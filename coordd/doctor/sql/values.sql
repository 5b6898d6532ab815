-- Numbers that stand for nothing: outcomes, endings, decisions, classes.
SELECT 'engagement ' || token FROM engagements
WHERE outcome NOT BETWEEN 1 AND 3 OR ended_by NOT BETWEEN 0 AND 4
UNION ALL SELECT 'escalation ' || id FROM escalations
WHERE decision NOT BETWEEN 0 AND 4 OR priority NOT BETWEEN 1 AND 4
UNION ALL SELECT 'permit ' || id FROM permits WHERE priority NOT BETWEEN 1 AND 4
UNION ALL SELECT 'reservation ' || id FROM reservations WHERE priority NOT BETWEEN 1 AND 4
UNION ALL SELECT 'forecast ' || subject FROM forecasts WHERE priority NOT BETWEEN 1 AND 4;
