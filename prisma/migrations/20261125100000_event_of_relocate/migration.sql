-- As before (migration events), and whether a tunnel may be moved is a change that its owner sees.
-- Not when the tunnel is made: open_tunnel sets it in the same transaction, and that is part of `tunnel.created`.
CREATE FUNCTION relocate_was_changed(was tunnels, is_ tunnels) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT was.relocate <> is_.relocate AND was.created_at <> now()::timestamptz(3)
$$;

CREATE OR REPLACE FUNCTION record_tunnel_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  server servers%ROWTYPE;
  facts jsonb;
  moment timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('bore-platform.events'));
  moment := clock_timestamp();
  SELECT * INTO server FROM servers WHERE id = NEW.server_id;
  -- what the owner may see of it (never the key), as this change left it
  facts := jsonb_build_object(
    'name', NEW.name, 'labels', NEW.labels, 'state', NEW.state, 'closeReason', NEW.close_reason,
    'serverId', NEW.server_id, 'host', server.host,
    'port', NEW.port, 'clientAddress', NEW.client_address, 'connectedAt', iso_instant(NEW.connected_at),
    'expiresAt', iso_instant(NEW.expires_at));

  INSERT INTO events (user_id, tunnel_id, type, at, data)
  SELECT NEW.user_id, NEW.id, happened.type, moment, facts
  FROM (VALUES
    (1, 'tunnel.created', TG_OP = 'INSERT'),
    (2, 'tunnel.relocated', TG_OP = 'UPDATE' AND (OLD.server_id, OLD.port) IS DISTINCT FROM (NEW.server_id, NEW.port)),
    (3, 'tunnel.updated', TG_OP = 'UPDATE'
      AND ((OLD.name, OLD.labels, OLD.settings_version, OLD.expires_at)
        IS DISTINCT FROM (NEW.name, NEW.labels, NEW.settings_version, NEW.expires_at) OR relocate_was_changed(OLD, NEW))),
    -- pending: only a new tunnel is, or one that was placed anew. Active again with a later epoch: another client took over
    (4, 'tunnel.' || NEW.state, TG_OP = 'UPDATE' AND NEW.state <> 'pending'
      AND (OLD.state <> NEW.state OR NEW.state = 'active' AND OLD.epoch <> NEW.epoch))
  ) AS happened (place, type, so) WHERE so ORDER BY place;

  PERFORM pg_notify('bore_events', '');
  RETURN NULL;
END $$;

DROP TRIGGER record_changed_tunnel ON tunnels;
CREATE CONSTRAINT TRIGGER record_changed_tunnel AFTER UPDATE ON tunnels DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (
    (OLD.state, OLD.epoch, OLD.server_id, OLD.port, OLD.name, OLD.labels, OLD.settings_version, OLD.expires_at)
    IS DISTINCT FROM
    (NEW.state, NEW.epoch, NEW.server_id, NEW.port, NEW.name, NEW.labels, NEW.settings_version, NEW.expires_at)
    OR relocate_was_changed(OLD, NEW))
  EXECUTE FUNCTION record_tunnel_event();
