-- As before (migration relocation), and a session that ends because its server is disabled hears so, also when a heartbeat comes
-- before the order to close it.
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
          WHEN server.state = 'disabled' THEN 'server disabled' ELSE 'superseded' END
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
