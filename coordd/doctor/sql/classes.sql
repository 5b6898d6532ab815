-- Charges whose parts by class are more than the whole.
SELECT limit_name || ' ' || worker FROM cells
WHERE medium + high + critical > count OR min(medium, high, critical) < 0;
