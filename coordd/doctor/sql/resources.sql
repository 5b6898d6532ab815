-- Exclusive resources that are held twice.
SELECT type || '/' || resource_id FROM reservations WHERE resource_id != ''
GROUP BY type, resource_id HAVING count(*) > 1;
