SELECT * FROM engagements WHERE at >= :since ORDER BY at, token
