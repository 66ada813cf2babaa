-- A port that is in quarantine on one server may be free on another: the others are tried, as for one that a tunnel has.

-- Checks quota and capacity, chooses a server and a port, and takes them (G1).
-- In:  user_limit           open tunnels of this user's plan
--      total_, reserved_    TOTAL_SYSTEM_CAPACITY (null: none), RESERVED_CAPACITY_PERCENT; 0 for who may use the reserve
--      asked_port           null: any
--      asked_location       null: any; another location is taken when this one is full
--      avoid                ids of servers not to use now
--      idle_seconds, ttl_seconds (null: none)
--      max_connections_, bandwidth_mbps_ (null: the limits of server and system), allow_cidrs_, deny_cidrs_, proxy_protocol_, labels_
-- Out: one row. outcome: 'opened' with server and port, 'exists' (this user's tunnel of this id was opened by an earlier
--      call: nothing changed), else 'user_suspended', 'quota_exceeded', 'name_taken',
--      'port_out_of_range' (no online server has it), 'port_taken' (by a tunnel or a quarantine, on all servers that have it and
--      have room), 'no_capacity'.
-- Locks capacity, then the chosen server: once an administrator's drain is answered, nothing is placed there.
CREATE OR REPLACE FUNCTION open_tunnel(
  id_ uuid, user_id_ uuid, user_limit integer, total_ integer, reserved_ integer, asked_port integer, asked_location text,
  avoid text[], name_ text, local_port_ integer, sealed_key_ bytea, max_connections_ integer, idle_seconds integer, ttl_seconds integer,
  bandwidth_mbps_ integer, allow_cidrs_ text[], deny_cidrs_ text[], proxy_protocol_ proxy_protocol, labels_ jsonb
) RETURNS TABLE (outcome text, server_id text, port integer) LANGUAGE plpgsql AS $$
DECLARE
  account users%ROWTYPE;
  chosen servers%ROWTYPE;
  chosen_port integer;
BEGIN
  PERFORM lock_capacity();

  IF EXISTS (SELECT FROM tunnels t WHERE t.id = id_ AND t.user_id = user_id_) THEN
    RETURN QUERY SELECT 'exists', NULL::text, NULL::integer; RETURN;
  END IF;
  SELECT * INTO STRICT account FROM users WHERE users.id = user_id_;
  IF account.suspended_at IS NOT NULL THEN RETURN QUERY SELECT 'user_suspended', NULL::text, NULL::integer; RETURN; END IF;
  IF account.open_tunnels >= user_limit THEN RETURN QUERY SELECT 'quota_exceeded', NULL::text, NULL::integer; RETURN; END IF;
  IF EXISTS (SELECT FROM tunnels t WHERE t.user_id = user_id_ AND t.name = name_ AND t.state <> 'closed') THEN
    RETURN QUERY SELECT 'name_taken', NULL::text, NULL::integer; RETURN;
  END IF;
  IF (SELECT coalesce(sum(open_tunnels), 0) FROM servers) >= system_capacity(total_, reserved_) THEN
    RETURN QUERY SELECT 'no_capacity', NULL::text, NULL::integer; RETURN;
  END IF;

  FOR chosen IN
    SELECT * FROM servers s
    WHERE s.state = 'online' AND s.lease_until > now() AND s.open_tunnels < s.max_tunnels AND NOT s.id = ANY (avoid)
      AND (asked_port IS NULL OR asked_port BETWEEN s.port_min AND s.port_max)
    ORDER BY s.location IS NOT DISTINCT FROM asked_location DESC,
             greatest(s.open_tunnels::float / s.max_tunnels, s.bandwidth_mbps / s.max_bandwidth_mbps), random()
  LOOP
    -- it may have been drained, or registered with other limits, since the list was read
    SELECT * INTO chosen FROM servers s
    WHERE s.id = chosen.id AND s.state = 'online' AND s.open_tunnels < s.max_tunnels
      AND (asked_port IS NULL OR asked_port BETWEEN s.port_min AND s.port_max)
    FOR NO KEY UPDATE;
    CONTINUE WHEN NOT FOUND;
    chosen_port := CASE
      WHEN asked_port IS NULL THEN free_port(chosen.id, chosen.port_min, chosen.port_max)
      WHEN NOT port_is_quarantined(chosen.id, asked_port)
        AND NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = chosen.id AND t.port = asked_port AND t.state <> 'closed') THEN asked_port
    END;
    CONTINUE WHEN chosen_port IS NULL;
    INSERT INTO tunnels (id, user_id, server_id, port, name, local_port, sealed_key, max_connections, idle_deadline, expires_at,
                         bandwidth_mbps, allow_cidrs, deny_cidrs, proxy_protocol, labels)
    VALUES (id_, user_id_, chosen.id, chosen_port, name_, local_port_, sealed_key_, max_connections_,
            now() + make_interval(secs => idle_seconds), now() + make_interval(secs => ttl_seconds),
            bandwidth_mbps_, allow_cidrs_, deny_cidrs_, proxy_protocol_, labels_);
    RETURN QUERY SELECT 'opened', chosen.id, chosen_port;
    RETURN;
  END LOOP;

  IF asked_port IS NOT NULL AND EXISTS (
    SELECT FROM servers s WHERE s.lease_until > now() AND asked_port BETWEEN s.port_min AND s.port_max AND (
      port_is_quarantined(s.id, asked_port)
      OR EXISTS (SELECT FROM tunnels t WHERE t.server_id = s.id AND t.port = asked_port AND t.state <> 'closed'))
  ) THEN
    RETURN QUERY SELECT 'port_taken', NULL::text, NULL::integer;
  ELSIF asked_port IS NOT NULL AND NOT EXISTS (
    SELECT FROM servers s WHERE s.lease_until > now() AND asked_port BETWEEN s.port_min AND s.port_max
  ) THEN
    RETURN QUERY SELECT 'port_out_of_range', NULL::text, NULL::integer;
  ELSE
    RETURN QUERY SELECT 'no_capacity', NULL::text, NULL::integer;
  END IF;
END $$;
