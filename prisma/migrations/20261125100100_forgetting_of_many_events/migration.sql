-- As before (migration events), and each call looks at `limit_` events only: at all that are old, it would look at them
-- once for every batch, and of ten million not find an end within a statement's time.
CREATE OR REPLACE FUNCTION forget_events(hours integer, limit_ integer) RETURNS bigint LANGUAGE sql AS $$
  WITH lowest AS (SELECT id, at FROM events ORDER BY id LIMIT limit_),
    -- up to the first that is younger
    aged AS (SELECT id, bool_and(at < now() - make_interval(hours => hours)) OVER (ORDER BY id) AS old FROM lowest),
    forgotten AS (
      DELETE FROM events WHERE id IN (SELECT id FROM aged WHERE old) AND id < (SELECT max(id) FROM events)
      RETURNING id)
  SELECT count(*) FROM forgotten
$$;
