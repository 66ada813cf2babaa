-- AlterTable
ALTER TABLE "servers" ADD COLUMN "heartbeat_sequence" INTEGER NOT NULL DEFAULT 0;

-- Applies one heartbeat of a bore-server: renews its lease, and makes tunnels agree with the sessions it carries (G3).
-- In:  sessions_      [{ tunnelId, sessionId, epoch }] what it carries now
--      ended_         [{ tunnelId, sessionId, epoch }] what ended since the last answered heartbeat
--      lease_seconds, offline_seconds (how long an offline tunnel keeps its port)
--      settle_seconds a granted session that is missing from sessions_ is given this long to appear: its authorize
--                     may have been answered after the heartbeat was written
-- Out: one row. outcome: 'applied', 'late' (a later heartbeat was applied before: nothing changed), 'superseded'
--      (another process holds the id) or 'unknown'; close: [{ tunnelId, sessionId, epoch, reason }] to be ended.
-- Runs under the lock of the server's row, so heartbeats of one server apply one after the other.
CREATE FUNCTION apply_heartbeat(
  server_id_ text, instance_id_ uuid, sequence_ integer, draining_ boolean, connections_ integer, bandwidth_mbps_ float,
  sessions_ jsonb, ended_ jsonb, lease_seconds integer, offline_seconds integer, settle_seconds integer
) RETURNS TABLE (outcome text, drain boolean, close jsonb) LANGUAGE plpgsql AS $$
DECLARE
  server servers%ROWTYPE;
  offline_until timestamptz := now() + make_interval(secs => offline_seconds);
BEGIN
  SELECT * INTO server FROM servers WHERE id = server_id_ FOR UPDATE;
  IF NOT FOUND OR server.instance_id IS NULL THEN
    RETURN QUERY SELECT 'unknown', false, '[]'::jsonb; RETURN;
  ELSIF server.instance_id <> instance_id_ THEN
    RETURN QUERY SELECT 'superseded', false, '[]'::jsonb; RETURN;
  ELSIF server.heartbeat_sequence >= sequence_ THEN
    RETURN QUERY SELECT 'late', false, '[]'::jsonb; RETURN;
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
    SELECT 'applied', server.drain_requested OR server.state = 'disabled', coalesce(jsonb_agg(jsonb_build_object(
      'tunnelId', c."tunnelId", 'sessionId', c."sessionId", 'epoch', c.epoch,
      'reason', CASE WHEN t.state = 'closed' THEN coalesce(t.close_reason, 'closed') WHEN t.id IS NULL THEN 'unknown' ELSE 'superseded' END
    )), '[]'::jsonb)
    FROM jsonb_to_recordset(sessions_) AS c ("tunnelId" uuid, "sessionId" uuid, epoch integer)
    LEFT JOIN tunnels t ON t.id = c."tunnelId" AND t.server_id = server_id_
    WHERE t.id IS NULL OR t.state <> 'active' OR t.session_id <> c."sessionId";
END $$;
