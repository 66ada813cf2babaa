-- CreateTable
CREATE TABLE "usage_reporters" (
    "reporter_id" UUID NOT NULL,
    "server_id" TEXT NOT NULL,
    "sequence" BIGINT NOT NULL,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "usage_reporters_pkey" PRIMARY KEY ("reporter_id")
);

-- CreateTable
CREATE TABLE "tunnel_usage" (
    "tunnel_id" UUID NOT NULL,
    "hour" TIMESTAMPTZ(3) NOT NULL,
    "bytes_in" BIGINT NOT NULL,
    "bytes_out" BIGINT NOT NULL,
    "connections" BIGINT NOT NULL,

    CONSTRAINT "tunnel_usage_pkey" PRIMARY KEY ("tunnel_id","hour")
);

-- CreateTable
CREATE TABLE "tunnel_connections" (
    "id" UUID NOT NULL,
    "tunnel_id" UUID NOT NULL,
    "visitor_address" TEXT NOT NULL,
    "visitor_port" INTEGER NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL,
    "ended_at" TIMESTAMPTZ(3) NOT NULL,
    "setup_ms" DOUBLE PRECISION,
    "bytes_in" BIGINT NOT NULL,
    "bytes_out" BIGINT NOT NULL,
    "reason" TEXT NOT NULL,

    CONSTRAINT "tunnel_connections_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "usage_reporters_updated_at_idx" ON "usage_reporters"("updated_at");

-- CreateIndex
CREATE INDEX "tunnel_usage_hour_idx" ON "tunnel_usage"("hour");

-- CreateIndex
CREATE INDEX "tunnel_connections_tunnel_id_ended_at_id_idx" ON "tunnel_connections"("tunnel_id", "ended_at" DESC, "id" DESC);

-- CreateIndex
CREATE INDEX "tunnel_connections_ended_at_idx" ON "tunnel_connections"("ended_at");

-- AddForeignKey
ALTER TABLE "usage_reporters" ADD CONSTRAINT "usage_reporters_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tunnel_usage" ADD CONSTRAINT "tunnel_usage_tunnel_id_fkey" FOREIGN KEY ("tunnel_id") REFERENCES "tunnels"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tunnel_connections" ADD CONSTRAINT "tunnel_connections_tunnel_id_fkey" FOREIGN KEY ("tunnel_id") REFERENCES "tunnels"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- The largest count of bytes kept: what a JSON number holds exactly (2^53 - 1, nine petabytes). Beyond it a count
-- stands still, instead of failing every later report.
CREATE FUNCTION bytes_max() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 9007199254740991';

-- Enters one report into the books, once (G4). Usage counts in the hour in which it is entered.
-- In:  report_ { reporterId, sequence, usage: [{ tunnelId, bytesIn, bytesOut, connections }], connections: [record] }
-- Out: 'applied'; 'repeated': this report or a later one of the reporter was applied before, nothing changed;
--      'refused': the reporter belongs to another server, nothing changed.
-- What it says about tunnels of other servers is left out. Closed tunnels count: their last bytes come late.
-- Locks the reporter's row, so reports of one reporter apply one after the other, then rows of tunnel_usage and
-- tunnel_connections in the order of their keys. Takes no lock of a server or a tunnel that anybody else waits for.
CREATE FUNCTION apply_report(server_id_ text, report_ jsonb) RETURNS text LANGUAGE plpgsql AS $$
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
  JOIN tunnels t ON t.id = d."tunnelId" AND t.server_id = server_id_
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
  JOIN tunnels t ON t.id = c."tunnelId" AND t.server_id = server_id_
  ORDER BY c.id
  ON CONFLICT (id) DO NOTHING;
  RETURN 'applied';
END $$;

-- Applies one heartbeat of a bore-server: enters its report, renews its lease, and makes tunnels agree with the sessions
-- it carries (G3).
-- In:  sessions_      [{ tunnelId, sessionId, epoch, settings }] what it carries now, and the version of their settings
--      ended_         [{ tunnelId, sessionId, epoch }] what ended since the last answered heartbeat
--      lease_seconds, offline_seconds (how long an offline tunnel keeps its port)
--      settle_seconds a granted session that is missing from sessions_ is given this long to appear: its authorize
--                     may have been answered after the heartbeat was written
--      report_        null: none
-- Out: one row. outcome: 'applied', 'late' (a later heartbeat was applied before: nothing but the report changed),
--      'superseded' (another process holds the id: likewise) or 'unknown' (nothing changed, the report included);
--      close_: [{ tunnelId, sessionId, epoch, reason }] to be ended; update_: [{ tunnelId, settings }] newer than what it
--      works with, bandwidthMbps null where the owner set none; report_outcome: of apply_report, null: there was none.
-- The report comes first, because it may be large: admissions wait for the lock of the server's row, and it is taken
-- behind it. Under that lock heartbeats of one server apply one after the other.
CREATE FUNCTION apply_heartbeat(
  server_id_ text, instance_id_ uuid, sequence_ integer, draining_ boolean, connections_ integer, bandwidth_mbps_ float,
  sessions_ jsonb, ended_ jsonb, lease_seconds integer, offline_seconds integer, settle_seconds integer, report_ jsonb
) RETURNS TABLE (outcome text, drain boolean, close_ jsonb, update_ jsonb, report_outcome text) LANGUAGE plpgsql AS $$
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
    RETURN QUERY SELECT 'unknown', false, '[]'::jsonb, '[]'::jsonb, entered; RETURN;
  ELSIF server.instance_id <> instance_id_ THEN
    RETURN QUERY SELECT 'superseded', false, '[]'::jsonb, '[]'::jsonb, entered; RETURN;
  ELSIF server.heartbeat_sequence >= sequence_ THEN
    RETURN QUERY SELECT 'late', server.drain_requested OR server.state = 'disabled', '[]'::jsonb, '[]'::jsonb, entered; RETURN;
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

  -- carried: the current session lives although we thought it gone, or the server began a later one without us
  UPDATE tunnels t SET state = 'active', session_id = c."sessionId", epoch = c.epoch, idle_deadline = NULL,
    connected_at = CASE WHEN t.epoch = c.epoch THEN t.connected_at ELSE now() END
  FROM jsonb_to_recordset(sessions_) AS c ("tunnelId" uuid, "sessionId" uuid, epoch integer)
  WHERE t.id = c."tunnelId" AND t.server_id = server_id_ AND t.state <> 'closed'
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
        'tunnelId', c."tunnelId", 'sessionId', c."sessionId", 'epoch', c.epoch,
        'reason', CASE WHEN t.state = 'closed' THEN coalesce(t.close_reason, 'closed') WHEN t.id IS NULL THEN 'unknown' ELSE 'superseded' END
      )) FILTER (WHERE t.id IS NULL OR t.state <> 'active' OR t.session_id <> c."sessionId"), '[]'),
      coalesce(jsonb_agg(jsonb_build_object('tunnelId', t.id, 'settings', jsonb_build_object(
        'version', t.settings_version, 'maxConnections', t.max_connections, 'bandwidthMbps', t.bandwidth_mbps,
        'allowCidrs', t.allow_cidrs, 'denyCidrs', t.deny_cidrs, 'proxyProtocol', t.proxy_protocol
      ))) FILTER (WHERE t.state = 'active' AND t.session_id = c."sessionId" AND c.settings < t.settings_version), '[]'),
      entered
    FROM jsonb_to_recordset(sessions_) AS c ("tunnelId" uuid, "sessionId" uuid, epoch integer, settings bigint)
    LEFT JOIN tunnels t ON t.id = c."tunnelId" AND t.server_id = server_id_;
END $$;

-- As backends of the release before call it: during a rolling update they run on this schema. Goes in a later release.
CREATE OR REPLACE FUNCTION apply_heartbeat(
  server_id_ text, instance_id_ uuid, sequence_ integer, draining_ boolean, connections_ integer, bandwidth_mbps_ float,
  sessions_ jsonb, ended_ jsonb, lease_seconds integer, offline_seconds integer, settle_seconds integer
) RETURNS TABLE (outcome text, drain boolean, close jsonb) LANGUAGE sql AS $$
  SELECT outcome, drain, close_ FROM apply_heartbeat(server_id_, instance_id_, sequence_, draining_, connections_, bandwidth_mbps_,
    sessions_, ended_, lease_seconds, offline_seconds, settle_seconds, NULL)
$$;
