-- AlterTable
ALTER TABLE "servers" ADD COLUMN "lost_at" TIMESTAMPTZ(3);

-- AlterTable
ALTER TABLE "tunnels" ADD COLUMN "relocate" BOOLEAN NOT NULL DEFAULT false;


-- What Prisma's schema cannot say.

-- When a server was noticed to be lost: the grace for its return begins here, and not with the end of its lease. After an outage
-- of the control plane all leases have ended long ago, and the servers are well.
CREATE FUNCTION note_loss_of_server() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.lost_at := CASE WHEN NEW.state <> 'offline' THEN NULL WHEN OLD.state = 'offline' THEN OLD.lost_at ELSE now() END;
  RETURN NEW;
END $$;

CREATE TRIGGER note_loss_of_server BEFORE UPDATE OF state ON servers FOR EACH ROW EXECUTE FUNCTION note_loss_of_server();

UPDATE servers SET lost_at = now() WHERE state = 'offline' AND instance_id IS NOT NULL;

-- Counters are kept by this trigger and by nothing else, so that no path can forget one. A tunnel that is moved takes its
-- slot along.
CREATE OR REPLACE FUNCTION count_open_tunnels() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was integer := CASE WHEN TG_OP = 'INSERT' OR OLD.state = 'closed' THEN 0 ELSE 1 END;
  is_ integer := CASE WHEN TG_OP = 'DELETE' OR NEW.state = 'closed' THEN 0 ELSE 1 END;
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.user_id <> NEW.user_id THEN
    RAISE EXCEPTION 'a tunnel does not change its user';
  END IF;
  IF was <> is_ THEN
    UPDATE users SET open_tunnels = open_tunnels + is_ - was WHERE id = COALESCE(NEW.user_id, OLD.user_id);
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.server_id <> NEW.server_id THEN
    UPDATE servers SET open_tunnels = open_tunnels - was WHERE id = OLD.server_id AND was > 0;
    UPDATE servers SET open_tunnels = open_tunnels + is_ WHERE id = NEW.server_id AND is_ > 0;
  ELSIF was <> is_ THEN
    UPDATE servers SET open_tunnels = open_tunnels + is_ - was WHERE id = COALESCE(NEW.server_id, OLD.server_id);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER refuse_quarantined_port_of_moved BEFORE UPDATE OF server_id, port ON tunnels
  FOR EACH ROW WHEN ((OLD.server_id, OLD.port) IS DISTINCT FROM (NEW.server_id, NEW.port)) EXECUTE FUNCTION refuse_quarantined_port();

-- As before, and whether the tunnel may be moved when its server is lost.
CREATE FUNCTION open_tunnel(
  id_ uuid, user_id_ uuid, user_limit integer, total_ integer, reserved_ integer, asked_port integer, asked_location text,
  avoid text[], name_ text, local_port_ integer, sealed_key_ bytea, max_connections_ integer, idle_seconds integer, ttl_seconds integer,
  bandwidth_mbps_ integer, allow_cidrs_ text[], deny_cidrs_ text[], proxy_protocol_ proxy_protocol, labels_ jsonb, relocate_ boolean
) RETURNS TABLE (outcome text, server_id text, port integer) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT o.outcome, o.server_id, o.port FROM open_tunnel(
    id_, user_id_, user_limit, total_, reserved_, asked_port, asked_location, avoid, name_, local_port_, sealed_key_, max_connections_,
    idle_seconds, ttl_seconds, bandwidth_mbps_, allow_cidrs_, deny_cidrs_, proxy_protocol_, labels_) o;
  -- not when it was opened by an earlier call: the owner may have changed it since
  UPDATE tunnels t SET relocate = true WHERE t.id = id_ AND relocate_ AND t.version = 0 AND t.state = 'pending';
END $$;

-- Sessions of a server that was cut off count on from the last epoch that it heard of, one for each time that its client came back
-- on its grant. Those of a relocated tunnel begin so far above that none of them can pass for one.
CREATE FUNCTION epochs_of_relocation() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 100000';

-- Moves tunnels that allow it off servers that were lost grace_seconds ago: each to a free slot and port of another server, in
-- the same location where there is one, on the same port where it is free (G1). Takes from the reserved capacity too; the system's total
-- stays as it is. What the old server says about a moved tunnel later changes nothing, and its next heartbeat ends what it
-- carries of it (G3).
-- In:  avoid            ids of servers not to use now
--      offline_seconds  for so long the slot is kept for the client to follow
--      limit_           tunnels at most
-- Out: what was moved. Less than limit_: there are no more, or nowhere to go.
-- Locks capacity, then for each tunnel its server, the new one, and the tunnel. Whatever has changed since the tunnels were listed is seen
-- then: the server's return, a client, the tunnel's end, or another call that has moved it.
CREATE FUNCTION relocate_tunnels(grace_seconds integer, offline_seconds integer, avoid text[], limit_ integer)
RETURNS TABLE (tunnel_id uuid, owner_id uuid, from_server text, from_port integer, to_server text, to_port integer) LANGUAGE plpgsql AS $$
DECLARE
  waiting record;
  chosen servers%ROWTYPE;
  chosen_port integer;
  placed boolean;
BEGIN
  PERFORM lock_capacity();
  FOR waiting IN
    SELECT t.id, t.user_id, t.port, t.server_id, s.location FROM tunnels t JOIN servers s ON s.id = t.server_id
    WHERE s.state = 'offline' AND s.lost_at <= now() - make_interval(secs => grace_seconds)
      AND t.relocate AND t.state IN ('pending', 'offline') AND (t.expires_at IS NULL OR t.expires_at > now())
    ORDER BY s.lost_at, t.id LIMIT limit_
  LOOP
    -- a server whose row is locked is having a heartbeat
    PERFORM FROM servers s WHERE s.id = waiting.server_id AND s.state = 'offline' FOR NO KEY UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    PERFORM FROM tunnels t WHERE t.id = waiting.id AND t.server_id = waiting.server_id AND t.relocate AND t.state IN ('pending', 'offline');
    CONTINUE WHEN NOT FOUND;
    placed := false;
    FOR chosen IN
      SELECT * FROM servers s
      WHERE s.state = 'online' AND s.lease_until > now() AND s.open_tunnels < s.max_tunnels AND NOT s.id = ANY (avoid)
      ORDER BY s.location = waiting.location DESC,
               greatest(s.open_tunnels::float / s.max_tunnels, s.bandwidth_mbps / s.max_bandwidth_mbps), random()
    LOOP
      -- it may have been drained, or registered with other limits, since the list was read
      SELECT * INTO chosen FROM servers s
      WHERE s.id = chosen.id AND s.state = 'online' AND s.open_tunnels < s.max_tunnels FOR NO KEY UPDATE;
      CONTINUE WHEN NOT FOUND;
      chosen_port := CASE
        WHEN waiting.port BETWEEN chosen.port_min AND chosen.port_max AND NOT port_is_quarantined(chosen.id, waiting.port)
          AND NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = chosen.id AND t.port = waiting.port AND t.state <> 'closed')
        THEN waiting.port
        ELSE free_port(chosen.id, chosen.port_min, chosen.port_max)
      END;
      CONTINUE WHEN chosen_port IS NULL;
      placed := true;
      UPDATE tunnels t SET server_id = chosen.id, port = chosen_port,
        epoch = t.epoch + epochs_of_relocation(), fenced_epoch = t.epoch + epochs_of_relocation(), fence_reason = 'relocated',
        idle_deadline = now() + make_interval(secs => offline_seconds)
      WHERE t.id = waiting.id AND t.server_id = waiting.server_id AND t.relocate AND t.state IN ('pending', 'offline');
      IF FOUND THEN
        RETURN QUERY SELECT waiting.id, waiting.user_id, waiting.server_id, waiting.port, chosen.id, chosen_port;
      END IF;
      EXIT;
    END LOOP;
    -- where there is no room for one, there is none for the next
    EXIT WHEN NOT placed;
  END LOOP;
END $$;

-- Whether a tunnel is, or was, on a server: a relocated one is remembered by its sessions.
CREATE FUNCTION was_carried_by(tunnel tunnels, server_id_ text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT tunnel.server_id = server_id_
    OR EXISTS (SELECT FROM tunnel_sessions s WHERE s.tunnel_id = tunnel.id AND s.server_id = server_id_)
$$;

-- Enters one report into the books, once (G4). Usage counts in the hour in which it is entered.
-- In:  report_ { reporterId, sequence, usage: [{ tunnelId, bytesIn, bytesOut, connections }], connections: [record] }
-- Out: 'applied'; 'repeated': this report or a later one of the reporter was applied before, nothing changed;
--      'refused': the reporter belongs to another server, nothing changed.
-- What it says about tunnels that the server has never carried is left out. Closed and relocated tunnels count: their last
-- bytes come late.
-- Locks the reporter's row, so reports of one reporter apply one after the other, then rows of tunnel_usage and
-- tunnel_connections in the order of their keys. Takes no lock of a server or a tunnel that anybody else waits for.
CREATE OR REPLACE FUNCTION apply_report(server_id_ text, report_ jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  reporter_id_ uuid := (report_ ->> 'reporterId')::uuid;
BEGIN
  INSERT INTO usage_reporters AS r (reporter_id, server_id, sequence, updated_at)
  VALUES (reporter_id_, server_id_, (report_ ->> 'sequence')::bigint, now())
  ON CONFLICT (reporter_id) DO UPDATE SET sequence = excluded.sequence, updated_at = excluded.updated_at
    WHERE r.server_id = excluded.server_id AND r.sequence < excluded.sequence;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM usage_reporters r WHERE r.reporter_id = reporter_id_ AND r.server_id = server_id_)
           THEN 'repeated' ELSE 'refused' END;
  END IF;

  INSERT INTO tunnel_usage AS u (tunnel_id, hour, bytes_in, bytes_out, connections)
  SELECT t.id, date_trunc('hour', now(), 'UTC'),
    least(sum(d."bytesIn"), bytes_max()), least(sum(d."bytesOut"), bytes_max()), least(sum(d.connections), bytes_max())
  FROM jsonb_to_recordset(report_ -> 'usage') AS d ("tunnelId" uuid, "bytesIn" bigint, "bytesOut" bigint, connections bigint)
  JOIN tunnels t ON t.id = d."tunnelId" AND was_carried_by(t, server_id_)
  GROUP BY t.id ORDER BY t.id
  ON CONFLICT (tunnel_id, hour) DO UPDATE SET
    bytes_in = least(u.bytes_in + excluded.bytes_in, bytes_max()),
    bytes_out = least(u.bytes_out + excluded.bytes_out, bytes_max()),
    connections = least(u.connections + excluded.connections, bytes_max());

  INSERT INTO tunnel_connections
    (id, tunnel_id, visitor_address, visitor_port, started_at, ended_at, setup_ms, bytes_in, bytes_out, reason)
  SELECT c.id, t.id, c."visitorAddress", c."visitorPort", c."startedAt", c."endedAt", c."setupMs", c."bytesIn", c."bytesOut", c.reason
  FROM jsonb_to_recordset(report_ -> 'connections') AS c (
    id uuid, "tunnelId" uuid, "visitorAddress" text, "visitorPort" integer, "startedAt" timestamptz, "endedAt" timestamptz,
    "setupMs" float, "bytesIn" bigint, "bytesOut" bigint, reason text)
  JOIN tunnels t ON t.id = c."tunnelId" AND was_carried_by(t, server_id_)
  ORDER BY c.id
  ON CONFLICT (id) DO NOTHING;
  RETURN 'applied';
END $$;

-- Applies one heartbeat of a bore-server: enters its report, renews its lease, and makes tunnels agree with the sessions
-- it carries (G3).
-- In:  sessions_      [{ tunnelId, sessionId, epoch, keyVersion, settings }] what it carries now, the version of the key under
--                     which each was let in (of older bore-servers: null), and the version of their settings
--      ended_         [{ tunnelId, sessionId, epoch }] what ended since the last answered heartbeat
--      lease_seconds, offline_seconds (how long an offline tunnel keeps its port)
--      settle_seconds a granted session that is missing from sessions_ is given this long to appear: its authorize
--                     may have been answered after the heartbeat was written
--      report_        null: none
--      kept_          [{ tunnelId, epoch, keyVersion, settings }] tunnels without a session of which it still keeps a grant or
--                     carries streams, with the latest session that it knows of
-- Out: one row. outcome: 'applied', 'late' (a later heartbeat was applied before: nothing but the report changed),
--      'superseded' (another process holds the id: likewise) or 'unknown' (nothing changed, the report included);
--      close_: [{ tunnelId, sessionId, epoch, reason }] to be ended; update_: [{ tunnelId, settings }] newer than what it
--      works with, bandwidthMbps null where the owner set none; report_outcome: of apply_report, null: there was none;
--      fence_: [{ tunnelId, epoch, keyVersion, reason }] sessions up to this epoch are over, and so is whatever was let in
--      under an older key; both are the largest integer where the tunnel is.
-- The report comes first, because it may be large: admissions wait for the lock of the server's row, and it is taken
-- behind it. Under that lock heartbeats of one server apply one after the other.
CREATE OR REPLACE FUNCTION apply_heartbeat(
  server_id_ text, instance_id_ uuid, sequence_ integer, draining_ boolean, connections_ integer, bandwidth_mbps_ float,
  sessions_ jsonb, ended_ jsonb, lease_seconds integer, offline_seconds integer, settle_seconds integer, report_ jsonb,
  kept_ jsonb
) RETURNS TABLE (outcome text, drain boolean, close_ jsonb, update_ jsonb, report_outcome text, fence_ jsonb) LANGUAGE plpgsql AS $$
DECLARE
  server servers%ROWTYPE;
  entered text;
  offline_until timestamptz := now() + make_interval(secs => offline_seconds);
BEGIN
  IF report_ IS NOT NULL AND EXISTS (SELECT FROM servers WHERE id = server_id_ AND instance_id IS NOT NULL) THEN
    entered := apply_report(server_id_, report_);
  END IF;

  SELECT * INTO server FROM servers WHERE id = server_id_ FOR NO KEY UPDATE;
  IF NOT FOUND OR server.instance_id IS NULL THEN
    RETURN QUERY SELECT 'unknown', false, '[]'::jsonb, '[]'::jsonb, entered, '[]'::jsonb; RETURN;
  ELSIF server.instance_id <> instance_id_ THEN
    RETURN QUERY SELECT 'superseded', false, '[]'::jsonb, '[]'::jsonb, entered, '[]'::jsonb; RETURN;
  ELSIF server.heartbeat_sequence >= sequence_ THEN
    RETURN QUERY SELECT 'late', server.drain_requested OR server.state = 'disabled', '[]'::jsonb, '[]'::jsonb, entered, '[]'::jsonb; RETURN;
  END IF;

  UPDATE servers SET
    state = CASE WHEN state = 'disabled' THEN state WHEN drain_requested OR draining_ THEN 'draining' ELSE 'online' END,
    lease_until = now() + make_interval(secs => lease_seconds), heartbeat_at = now(), heartbeat_sequence = sequence_,
    connections = connections_, bandwidth_mbps = bandwidth_mbps_
  WHERE id = server_id_;

  -- ended: only the very session that is current may end
  UPDATE tunnels t SET state = 'offline', idle_deadline = offline_until
  FROM jsonb_to_recordset(ended_) AS e ("tunnelId" uuid, "sessionId" uuid, epoch integer)
  WHERE t.id = e."tunnelId" AND t.server_id = server_id_ AND t.state = 'active'
    AND t.session_id = e."sessionId" AND t.epoch = e.epoch;

  -- carried: the current session lives although we thought it gone, or the server began a later one without us, with a
  -- client of which we know nothing; not what its owner has ended, nor what was let in by a token that is none any more
  UPDATE tunnels t SET state = 'active', session_id = c."sessionId", epoch = c.epoch, idle_deadline = NULL,
    connected_at = CASE WHEN t.epoch = c.epoch THEN t.connected_at ELSE now() END,
    client_address = CASE WHEN t.epoch = c.epoch THEN t.client_address END
  FROM jsonb_to_recordset(sessions_) AS c ("tunnelId" uuid, "sessionId" uuid, epoch integer, "keyVersion" integer)
  WHERE t.id = c."tunnelId" AND t.server_id = server_id_ AND t.state <> 'closed'
    AND c.epoch > t.fenced_epoch AND coalesce(c."keyVersion", t.key_version) >= t.key_version
    AND (c.epoch > t.epoch OR (c.epoch = t.epoch AND c."sessionId" = t.session_id AND t.state <> 'active'));

  -- missing: granted, but the server does not carry it
  UPDATE tunnels t SET state = 'offline', idle_deadline = offline_until
  WHERE t.server_id = server_id_ AND t.state = 'active' AND t.connected_at < now() - make_interval(secs => settle_seconds)
    AND NOT EXISTS (
      SELECT FROM jsonb_to_recordset(sessions_) AS c ("tunnelId" uuid, "sessionId" uuid)
      WHERE c."tunnelId" = t.id AND c."sessionId" = t.session_id);

  RETURN QUERY
    SELECT 'applied', server.drain_requested OR server.state = 'disabled',
      coalesce(jsonb_agg(jsonb_build_object(
        'tunnelId', c."tunnelId", 'sessionId', c."sessionId", 'epoch', c.epoch, 'reason', CASE
          WHEN t.state = 'closed' THEN coalesce(t.close_reason, 'closed')
          WHEN t.id IS NULL THEN CASE WHEN elsewhere.id IS NULL THEN 'unknown' ELSE 'relocated' END
          WHEN c."keyVersion" < t.key_version THEN 'token_rotated' WHEN c.epoch <= t.fenced_epoch THEN t.fence_reason
          ELSE 'superseded' END
      )) FILTER (WHERE c."sessionId" IS NOT NULL
        AND (t.id IS NULL OR t.state <> 'active' OR t.session_id IS DISTINCT FROM c."sessionId")), '[]'),
      coalesce(jsonb_agg(jsonb_build_object('tunnelId', t.id, 'settings', jsonb_build_object(
        'version', t.settings_version, 'maxConnections', t.max_connections, 'bandwidthMbps', t.bandwidth_mbps,
        'allowCidrs', t.allow_cidrs, 'denyCidrs', t.deny_cidrs, 'proxyProtocol', t.proxy_protocol,
        'expiresAt', to_char(t.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
      ))) FILTER (WHERE c.settings < t.settings_version AND t.state <> 'closed'
        AND (c."sessionId" IS NULL OR (t.state = 'active' AND t.session_id = c."sessionId"))), '[]'),
      entered,
      coalesce(jsonb_agg(jsonb_build_object(
        'tunnelId', c."tunnelId",
        'epoch', CASE WHEN t.id IS NULL OR t.state = 'closed' THEN 2147483647 ELSE t.fenced_epoch END,
        'keyVersion', CASE WHEN t.id IS NULL OR t.state = 'closed' THEN 2147483647 ELSE t.key_version END,
        'reason', CASE
          WHEN t.state = 'closed' THEN coalesce(t.close_reason, 'closed')
          WHEN t.id IS NULL THEN CASE WHEN elsewhere.id IS NULL THEN 'unknown' ELSE 'relocated' END
          WHEN c."keyVersion" < t.key_version THEN 'token_rotated' ELSE t.fence_reason END
      )) FILTER (WHERE c."sessionId" IS NULL AND (t.id IS NULL OR t.state = 'closed')
        OR c."keyVersion" < t.key_version OR c.epoch <= t.fenced_epoch), '[]')
    FROM (
      SELECT * FROM jsonb_to_recordset(sessions_)
        AS s ("tunnelId" uuid, "sessionId" uuid, epoch integer, "keyVersion" integer, settings bigint)
      UNION ALL
      SELECT "tunnelId", NULL, epoch, "keyVersion", settings FROM jsonb_to_recordset(kept_)
        AS k ("tunnelId" uuid, epoch integer, "keyVersion" integer, settings bigint)
    ) c
    LEFT JOIN tunnels t ON t.id = c."tunnelId" AND t.server_id = server_id_
    LEFT JOIN tunnels elsewhere ON elsewhere.id = c."tunnelId" AND elsewhere.server_id <> server_id_;
END $$;

CREATE FUNCTION wrong_open_tunnels() RETURNS TABLE (counter text, id text, said integer, counted integer) LANGUAGE sql STABLE AS $$
  SELECT 'server', s.id, s.open_tunnels, coalesce(t.n, 0)
  FROM servers s LEFT JOIN (SELECT server_id, count(*)::integer AS n FROM tunnels WHERE state <> 'closed' GROUP BY 1) t ON t.server_id = s.id
  WHERE s.open_tunnels <> coalesce(t.n, 0)
  UNION ALL
  SELECT 'user', u.id::text, u.open_tunnels, coalesce(t.n, 0)
  FROM users u LEFT JOIN (SELECT user_id, count(*)::integer AS n FROM tunnels WHERE state <> 'closed' GROUP BY 1) t ON t.user_id = u.id
  WHERE u.open_tunnels <> coalesce(t.n, 0)
$$;

-- Compares the counters of open tunnels with the tunnels, and puts right those that differ.
-- Out: one row for each that did: counter 'server' or 'user', whose it is, what it said and what is true.
-- Counters change with the rows that they count, in one transaction: within one statement's view a difference is an error, and never a
-- transaction under way. Only where there is one, locks capacity and looks again; then, nothing else opens or closes tunnels.
CREATE FUNCTION reconcile_open_tunnels() RETURNS TABLE (counter text, id text, said integer, counted integer) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM wrong_open_tunnels()) THEN RETURN; END IF;
  PERFORM lock_capacity();
  RETURN QUERY
    WITH wrong AS MATERIALIZED (SELECT * FROM wrong_open_tunnels()),
      servers_ AS (UPDATE servers s SET open_tunnels = w.counted FROM wrong w WHERE w.counter = 'server' AND s.id = w.id),
      users_ AS (UPDATE users u SET open_tunnels = w.counted FROM wrong w WHERE w.counter = 'user' AND u.id::text = w.id)
    SELECT * FROM wrong;
END $$;
