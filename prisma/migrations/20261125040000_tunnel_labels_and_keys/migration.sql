-- AlterTable
ALTER TABLE "tunnels" ADD COLUMN "fence_reason" TEXT,
ADD COLUMN "fenced_epoch" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN "key_version" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN "labels" JSONB NOT NULL DEFAULT '{}',
ADD COLUMN "version" INTEGER NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "tunnel_sessions" (
    "id" UUID NOT NULL,
    "tunnel_id" UUID NOT NULL,
    "server_id" TEXT NOT NULL,
    "epoch" INTEGER NOT NULL,
    "client_address" TEXT,
    "connected_at" TIMESTAMPTZ(3) NOT NULL,
    "disconnected_at" TIMESTAMPTZ(3),

    CONSTRAINT "tunnel_sessions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "idempotency_keys" (
    "user_id" UUID NOT NULL,
    "route" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "body_hash" BYTEA NOT NULL,
    "resource_id" UUID NOT NULL,
    "sealed_secret" BYTEA NOT NULL,
    "claim_id" UUID NOT NULL,
    "claimed_until" TIMESTAMPTZ(3) NOT NULL,
    "sealed_answer" BYTEA,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "idempotency_keys_pkey" PRIMARY KEY ("user_id","route","key")
);

-- CreateIndex
CREATE INDEX "tunnels_user_id_created_at_id_idx" ON "tunnels"("user_id", "created_at", "id");

-- CreateIndex
CREATE INDEX "tunnel_sessions_tunnel_id_epoch_idx" ON "tunnel_sessions"("tunnel_id", "epoch" DESC);

-- CreateIndex
CREATE INDEX "tunnel_sessions_disconnected_at_idx" ON "tunnel_sessions"("disconnected_at");

-- CreateIndex
CREATE INDEX "idempotency_keys_user_id_created_at_idx" ON "idempotency_keys"("user_id", "created_at" DESC);

-- CreateIndex
CREATE INDEX "idempotency_keys_created_at_idx" ON "idempotency_keys"("created_at");

-- AddForeignKey
ALTER TABLE "tunnel_sessions" ADD CONSTRAINT "tunnel_sessions_tunnel_id_fkey" FOREIGN KEY ("tunnel_id") REFERENCES "tunnels"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "idempotency_keys" ADD CONSTRAINT "idempotency_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- What Prisma's schema cannot say.

-- Labels have no index: every list is of one user, whose rows the index of its order finds, and a GIN index would be
-- kept up to date for the sake of the few who filter by label.

-- Every change of a tunnel makes another version of it, so that no statement can forget to: ETags are made of it.
CREATE FUNCTION next_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;

CREATE TRIGGER tunnels_next_version BEFORE UPDATE ON tunnels
  FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION next_version();

-- A client session begins when a tunnel gets another session id, and ends when the tunnel is not active any more, or
-- gets the next. One that was thought gone and is carried after all has not ended.
CREATE FUNCTION record_client_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.session_id IS NOT NULL AND (NEW.state <> 'active' OR NEW.session_id IS DISTINCT FROM OLD.session_id) THEN
    UPDATE tunnel_sessions SET disconnected_at = now() WHERE id = OLD.session_id AND disconnected_at IS NULL;
  END IF;
  IF NEW.state = 'active' AND NEW.session_id IS NOT NULL THEN
    INSERT INTO tunnel_sessions AS s (id, tunnel_id, server_id, epoch, client_address, connected_at)
    VALUES (NEW.session_id, NEW.id, NEW.server_id, NEW.epoch, NEW.client_address, coalesce(NEW.connected_at, now()))
    ON CONFLICT (id) DO UPDATE SET disconnected_at = NULL WHERE s.tunnel_id = excluded.tunnel_id;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER record_client_session AFTER UPDATE OF state, session_id ON tunnels
  FOR EACH ROW WHEN (OLD.state <> NEW.state OR OLD.session_id IS DISTINCT FROM NEW.session_id)
  EXECUTE FUNCTION record_client_session();

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
--      'port_out_of_range' (no online server has it), 'port_taken', 'no_capacity'.
-- Locks capacity, then the chosen server: once an administrator's drain is answered, nothing is placed there.
CREATE FUNCTION open_tunnel(
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
      WHEN NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = chosen.id AND t.port = asked_port AND t.state <> 'closed') THEN asked_port
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
    SELECT FROM tunnels t JOIN servers s ON s.id = t.server_id
    WHERE s.lease_until > now() AND t.port = asked_port AND t.state <> 'closed'
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

-- As backends of the release before call it: during a rolling update they run on this schema. Goes in a later release.
CREATE OR REPLACE FUNCTION open_tunnel(
  id_ uuid, user_id_ uuid, user_limit integer, total_ integer, reserved_ integer, asked_port integer, asked_location text,
  avoid text[], name_ text, local_port_ integer, sealed_key_ bytea, max_connections_ integer, idle_seconds integer, ttl_seconds integer,
  bandwidth_mbps_ integer, allow_cidrs_ text[], deny_cidrs_ text[], proxy_protocol_ proxy_protocol
) RETURNS TABLE (outcome text, server_id text, port integer) LANGUAGE sql AS $$
  SELECT * FROM open_tunnel(id_, user_id_, user_limit, total_, reserved_, asked_port, asked_location, avoid, name_, local_port_,
                            sealed_key_, max_connections_, idle_seconds, ttl_seconds, bandwidth_mbps_, allow_cidrs_, deny_cidrs_,
                            proxy_protocol_, '{}')
$$;

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
CREATE FUNCTION apply_heartbeat(
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
          WHEN t.state = 'closed' THEN coalesce(t.close_reason, 'closed') WHEN t.id IS NULL THEN 'unknown'
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
          WHEN t.state = 'closed' THEN coalesce(t.close_reason, 'closed') WHEN t.id IS NULL THEN 'unknown'
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
    LEFT JOIN tunnels t ON t.id = c."tunnelId" AND t.server_id = server_id_;
END $$;

-- As backends of the release before call it: during a rolling update they run on this schema. Goes in a later release.
CREATE OR REPLACE FUNCTION apply_heartbeat(
  server_id_ text, instance_id_ uuid, sequence_ integer, draining_ boolean, connections_ integer, bandwidth_mbps_ float,
  sessions_ jsonb, ended_ jsonb, lease_seconds integer, offline_seconds integer, settle_seconds integer, report_ jsonb
) RETURNS TABLE (outcome text, drain boolean, close_ jsonb, update_ jsonb, report_outcome text) LANGUAGE sql AS $$
  SELECT outcome, drain, close_, update_, report_outcome FROM apply_heartbeat(server_id_, instance_id_, sequence_, draining_,
    connections_, bandwidth_mbps_, sessions_, ended_, lease_seconds, offline_seconds, settle_seconds, report_, '[]')
$$;
