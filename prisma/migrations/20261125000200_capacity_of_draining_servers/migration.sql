-- Tunnels that may be open at once over all servers: the total set by the operator (null: none set) or what the live
-- servers can carry, whichever is less, minus the reserved share. A draining server takes no new tunnels: it counts with
-- those it has, and its free slots are nobody's.
CREATE OR REPLACE FUNCTION system_capacity(total_ integer, reserved_percent integer) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT floor(least(total_, coalesce(sum(CASE state WHEN 'draining' THEN least(open_tunnels, max_tunnels) ELSE max_tunnels END), 0))
               * (100 - reserved_percent) / 100.0)::bigint
  FROM servers WHERE state IN ('online', 'draining') AND lease_until > now()
$$;
