-- Tunnels that may be open at once over all servers: what the servers that take new ones can carry, minus the reserved
-- share, and beside it what is open elsewhere, on servers that drain or are lost: that takes nothing from the others. Or
-- the total set by the operator (null: none set), minus the reserved share, whichever is less.
CREATE OR REPLACE FUNCTION system_capacity(total_ integer, reserved_percent integer) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT least(
    floor(total_ * (100 - reserved_percent) / 100.0),
    floor(coalesce(sum(max_tunnels) FILTER (WHERE takes_new), 0) * (100 - reserved_percent) / 100.0)
      + coalesce(sum(open_tunnels) FILTER (WHERE NOT takes_new), 0)
  )::bigint
  FROM (SELECT max_tunnels, open_tunnels, state = 'online' AND coalesce(lease_until > now(), false) AS takes_new FROM servers) s
$$;
