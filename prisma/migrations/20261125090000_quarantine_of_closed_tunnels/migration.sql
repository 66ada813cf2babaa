-- How many ports that a user has given back are kept from everybody when the user is suspended, besides those that they have
-- then: more than anybody needs, and no server's whole range.
CREATE FUNCTION ports_kept_of_user() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 100';

-- Puts the ports of closed tunnels into quarantine.
-- In:  ids                those that are open, or were closed longer ago than the quarantine lasts, are left out, and so is a
--                         port that another tunnel has now
--      quarantine_hours_  0: none. A quarantine that is there and lasts longer stays
-- Call it under lock_capacity: no tunnel gets a port meanwhile.
CREATE FUNCTION quarantine_ports_of_closed(ids uuid[], actor_id_ uuid, quarantine_hours_ integer, reason_ text)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO port_quarantine AS q (server_id, port, until, reason, tunnel_id, user_id, created_by)
  SELECT DISTINCT ON (t.server_id, t.port)
    t.server_id, t.port, now() + make_interval(hours => quarantine_hours_), reason_, t.id, t.user_id, actor_id_
  FROM tunnels t
  WHERE t.id = ANY (ids) AND t.state = 'closed' AND t.closed_at > now() - make_interval(hours => quarantine_hours_)
    AND NOT EXISTS (SELECT FROM tunnels o WHERE o.server_id = t.server_id AND o.port = t.port AND o.state <> 'closed')
  ORDER BY t.server_id, t.port, t.closed_at DESC
  ON CONFLICT (server_id, port) DO UPDATE SET until = greatest(q.until, excluded.until), reason = excluded.reason,
    tunnel_id = excluded.tunnel_id, user_id = excluded.user_id, created_by = excluded.created_by, created_at = now()
$$;

-- Changes an account for an administrator. Suspending one closes its tunnels; with a quarantine, the ports that it gave back
-- within the time that the quarantine lasts are kept too: who expects to be suspended closes them first.
-- In:  version_           null: whatever it is now
--      plan_, role_, name_, suspended_   null: stays
--      suspend_reason_, quarantine_hours_ (0: none)   where suspended_ is true
-- Out: one row. outcome: 'updated' with closed (see close_tunnels); else nothing has changed: 'forbidden' (the actor is no
--      administrator any more), 'not_found', 'changed' (another version), 'own_account' (nobody demotes or suspends
--      themselves).
-- Because the actor must be an administrator under the lock that all such changes take, and cannot remove themselves, one
-- administrator always remains.
-- Of the ports given back only those that a client came to are kept, the last ports_kept_of_user() of them: opening and closing
-- alone puts none out of use, and pushes none out of the count.
-- Locks capacity, the account, then as close_tunnels.
CREATE OR REPLACE FUNCTION administer_user(
  actor_id_ uuid, user_id_ uuid, version_ integer, plan_ plan, role_ role, name_ text,
  suspended_ boolean, suspend_reason_ text, quarantine_hours_ integer
) RETURNS TABLE (outcome text, closed jsonb) LANGUAGE plpgsql AS $$
DECLARE
  account users%ROWTYPE;
  given_back uuid[];
  closed_ jsonb := '[]';
BEGIN
  PERFORM lock_capacity();
  IF NOT EXISTS (SELECT FROM users a WHERE a.id = actor_id_ AND a.role = 'admin' AND a.suspended_at IS NULL) THEN
    RETURN QUERY SELECT 'forbidden', closed_; RETURN;
  END IF;
  SELECT * INTO account FROM users WHERE id = user_id_ FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN QUERY SELECT 'not_found', closed_; RETURN; END IF;
  IF version_ <> account.version THEN RETURN QUERY SELECT 'changed', closed_; RETURN; END IF;
  IF user_id_ = actor_id_ AND (role_ = 'user' OR suspended_) THEN
    RETURN QUERY SELECT 'own_account', closed_; RETURN;
  END IF;

  UPDATE users SET
    plan = coalesce(plan_, plan), role = coalesce(role_, role), name = coalesce(name_, name),
    suspended_at = CASE suspended_ WHEN true THEN coalesce(suspended_at, now()) WHEN false THEN NULL ELSE suspended_at END,
    suspended_reason = CASE suspended_ WHEN true THEN suspend_reason_ WHEN false THEN NULL ELSE suspended_reason END,
    version = version + 1
  WHERE id = user_id_;
  IF suspended_ THEN
    -- before those that are open become closed ones: they are kept without being counted
    given_back := ARRAY(
      SELECT last.id FROM (
        SELECT DISTINCT ON (t.server_id, t.port) t.id, t.closed_at FROM tunnels t
        WHERE t.user_id = user_id_ AND t.state = 'closed' AND t.connected_at IS NOT NULL
          AND t.closed_at > now() - make_interval(hours => quarantine_hours_)
        ORDER BY t.server_id, t.port, t.closed_at DESC) last
      ORDER BY last.closed_at DESC LIMIT ports_kept_of_user());
    closed_ := close_tunnels(ARRAY(SELECT t.id FROM tunnels t WHERE t.user_id = user_id_ AND t.state <> 'closed'),
                             'suspended', actor_id_, coalesce(quarantine_hours_, 0), suspend_reason_);
    IF quarantine_hours_ > 0 THEN
      PERFORM quarantine_ports_of_closed(given_back, actor_id_, quarantine_hours_, suspend_reason_);
    END IF;
  END IF;
  RETURN QUERY SELECT 'updated', closed_;
END $$;

-- Closes a tunnel because of what it is used for, with quarantine of its port, and its owner's suspension if asked for. One that was
-- closed before, within the time that the quarantine lasts, stays as it is, and its port is kept all the same.
-- Out: one row, owner_id null where there is no such tunnel. outcome: as of administer_user, and 'closed': it was closed before,
--      longer ago than that, or another tunnel has its port. One of the owner's is closed where the owner is suspended.
CREATE OR REPLACE FUNCTION suspend_tunnel(
  actor_id_ uuid, tunnel_id_ uuid, reason_ text, quarantine_hours_ integer, suspend_owner boolean
) RETURNS TABLE (outcome text, owner_id uuid, closed jsonb) LANGUAGE plpgsql AS $$
DECLARE
  tunnel tunnels%ROWTYPE;
BEGIN
  PERFORM lock_capacity();
  IF NOT EXISTS (SELECT FROM users a WHERE a.id = actor_id_ AND a.role = 'admin' AND a.suspended_at IS NULL) THEN
    RETURN QUERY SELECT 'forbidden', NULL::uuid, '[]'::jsonb; RETURN;
  END IF;
  SELECT * INTO tunnel FROM tunnels WHERE id = tunnel_id_;
  IF NOT FOUND THEN RETURN QUERY SELECT 'not_found', NULL::uuid, '[]'::jsonb; RETURN; END IF;
  IF tunnel.state = 'closed' AND (
    tunnel.closed_at <= now() - make_interval(hours => quarantine_hours_) OR EXISTS (
      SELECT FROM tunnels o WHERE o.server_id = tunnel.server_id AND o.port = tunnel.port AND o.state <> 'closed'
        AND NOT (suspend_owner AND o.user_id = tunnel.user_id))
  ) THEN
    RETURN QUERY SELECT 'closed', tunnel.user_id, '[]'::jsonb; RETURN;
  END IF;

  outcome := 'updated';
  owner_id := tunnel.user_id;
  closed := '[]';
  IF suspend_owner THEN
    SELECT u.outcome, u.closed INTO outcome, closed
      FROM administer_user(actor_id_, tunnel.user_id, NULL, NULL, NULL, NULL, true, reason_, quarantine_hours_) u;
  ELSIF tunnel.state <> 'closed' THEN
    closed := close_tunnels(ARRAY[tunnel_id_], 'suspended', actor_id_, quarantine_hours_, reason_);
  END IF;
  IF outcome = 'updated' AND tunnel.state = 'closed' THEN
    PERFORM quarantine_ports_of_closed(ARRAY[tunnel_id_], actor_id_, quarantine_hours_, reason_);
  END IF;
  RETURN NEXT;
END $$;
