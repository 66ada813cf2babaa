-- AlterTable
ALTER TABLE "users" ADD COLUMN "suspended_reason" TEXT,
ADD COLUMN "version" INTEGER NOT NULL DEFAULT 0;

-- AlterTable
ALTER TABLE "servers" ADD COLUMN "deleted_at" TIMESTAMPTZ(3),
ADD COLUMN "max_tunnels_admin" INTEGER,
ADD COLUMN "max_tunnels_named" INTEGER,
ADD COLUMN "version" INTEGER NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "port_quarantine" (
    "server_id" TEXT NOT NULL,
    "port" INTEGER NOT NULL,
    "until" TIMESTAMPTZ(3) NOT NULL,
    "reason" TEXT NOT NULL,
    "tunnel_id" UUID,
    "user_id" UUID,
    "created_by" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "port_quarantine_pkey" PRIMARY KEY ("server_id","port")
);

-- CreateTable
CREATE TABLE "backends" (
    "id" UUID NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "seen_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "backends_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "breaker_views" (
    "backend_id" UUID NOT NULL,
    "server_id" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "stats" JSONB NOT NULL,
    "reset_requested" BOOLEAN NOT NULL DEFAULT false,
    "updated_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "breaker_views_pkey" PRIMARY KEY ("backend_id","server_id")
);

-- CreateIndex
CREATE INDEX "port_quarantine_until_idx" ON "port_quarantine"("until");

-- CreateIndex
CREATE INDEX "tunnels_server_id_port_closed_at_idx" ON "tunnels"("server_id", "port", "closed_at");

-- AddForeignKey
ALTER TABLE "port_quarantine" ADD CONSTRAINT "port_quarantine_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "breaker_views" ADD CONSTRAINT "breaker_views_backend_id_fkey" FOREIGN KEY ("backend_id") REFERENCES "backends"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- What Prisma's schema cannot say.

-- Who set a limit was not recorded. Taken as the administrator's, none is exceeded, and an administrator can lift it.
UPDATE "servers" SET max_tunnels_admin = max_tunnels;

-- How long a port that was given back is not handed out at random: visitors and clients that have not heard of the end
-- yet should not land at a stranger's. Who asks for the port gets it.
CREATE FUNCTION port_reuse_seconds() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 60';

CREATE FUNCTION port_is_quarantined(server_id_ text, port_ integer) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM port_quarantine q WHERE q.server_id = server_id_ AND q.port = port_ AND q.until > now())
$$;

-- A free public port of a server, or null: never one in quarantine. Few random tries first, for one that nobody had a
-- minute ago: they find one at once while the range is not nearly full. Then the lowest free one, those just given back
-- last.
CREATE OR REPLACE FUNCTION free_port(server_id_ text, min_ integer, max_ integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  candidate integer;
  recent timestamptz := now() - make_interval(secs => port_reuse_seconds());
BEGIN
  FOR i IN 1..16 LOOP
    candidate := min_ + floor(random() * (max_ - min_ + 1))::integer;
    IF NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = server_id_ AND t.port = candidate AND (t.closed_at IS NULL OR t.closed_at > recent))
       AND NOT port_is_quarantined(server_id_, candidate) THEN
      RETURN candidate;
    END IF;
  END LOOP;
  RETURN (SELECT p FROM generate_series(min_, max_) p
          WHERE NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = server_id_ AND t.port = p AND t.state <> 'closed')
            AND NOT EXISTS (SELECT FROM port_quarantine q WHERE q.server_id = server_id_ AND q.port = p AND q.until > now())
          ORDER BY EXISTS (SELECT FROM tunnels t WHERE t.server_id = server_id_ AND t.port = p AND t.closed_at > recent), p
          LIMIT 1);
END $$;

-- Holds for every way in which a tunnel can get a port, the port that somebody asks for included.
CREATE FUNCTION refuse_quarantined_port() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF port_is_quarantined(NEW.server_id, NEW.port) THEN
    RAISE EXCEPTION 'port % of server % is in quarantine', NEW.port, NEW.server_id USING ERRCODE = 'unique_violation', CONSTRAINT = 'port_quarantine';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER refuse_quarantined_port BEFORE INSERT ON tunnels FOR EACH ROW EXECUTE FUNCTION refuse_quarantined_port();

-- Closes tunnels for an administrator, and puts their ports into quarantine.
-- In:  ids                those that are closed already are left out
--      quarantine_hours_  0: none. A quarantine that is there and lasts longer stays
-- Out: [{ id, reason, serverId, adminUrl }] what was closed, and where it must be ended on the wire.
-- Call it under lock_capacity. Locks the servers in the order of their ids, then the tunnels.
CREATE FUNCTION close_tunnels(ids uuid[], close_reason_ text, actor_id_ uuid, quarantine_hours_ integer, reason_ text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  answer jsonb;
BEGIN
  PERFORM FROM servers WHERE id IN (SELECT t.server_id FROM tunnels t WHERE t.id = ANY (ids)) ORDER BY id FOR NO KEY UPDATE;
  WITH closed AS (
    UPDATE tunnels t SET state = 'closed', close_reason = close_reason_, closed_at = now(), idle_deadline = NULL
    WHERE t.id = ANY (ids) AND t.state <> 'closed'
    RETURNING t.id, t.server_id, t.port, t.user_id
  ), quarantined AS (
    INSERT INTO port_quarantine AS q (server_id, port, until, reason, tunnel_id, user_id, created_by)
    SELECT server_id, port, now() + make_interval(hours => quarantine_hours_), reason_, id, user_id, actor_id_
    FROM closed WHERE quarantine_hours_ > 0
    ON CONFLICT (server_id, port) DO UPDATE SET until = greatest(q.until, excluded.until), reason = excluded.reason,
      tunnel_id = excluded.tunnel_id, user_id = excluded.user_id, created_by = excluded.created_by, created_at = now()
  )
  SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'reason', close_reason_, 'serverId', s.id, 'adminUrl', s.admin_url)), '[]')
  INTO answer FROM closed c JOIN servers s ON s.id = c.server_id;
  RETURN answer;
END $$;

-- Changes an account for an administrator. Suspending one closes its tunnels.
-- In:  version_           null: whatever it is now
--      plan_, role_, name_, suspended_   null: stays
--      suspend_reason_, quarantine_hours_ (0: none)   where suspended_ is true
-- Out: one row. outcome: 'updated' with closed (see close_tunnels); else nothing has changed: 'forbidden' (the actor is no
--      administrator any more), 'not_found', 'changed' (another version), 'own_account' (nobody demotes or suspends
--      themselves).
-- Because the actor must be an administrator under the lock that all such changes take, and cannot remove themselves, one
-- administrator always remains.
-- Locks capacity, the account, then as close_tunnels.
CREATE FUNCTION administer_user(
  actor_id_ uuid, user_id_ uuid, version_ integer, plan_ plan, role_ role, name_ text,
  suspended_ boolean, suspend_reason_ text, quarantine_hours_ integer
) RETURNS TABLE (outcome text, closed jsonb) LANGUAGE plpgsql AS $$
DECLARE
  account users%ROWTYPE;
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
    closed_ := close_tunnels(ARRAY(SELECT t.id FROM tunnels t WHERE t.user_id = user_id_ AND t.state <> 'closed'),
                             'suspended', actor_id_, coalesce(quarantine_hours_, 0), suspend_reason_);
  END IF;
  RETURN QUERY SELECT 'updated', closed_;
END $$;

-- Closes a tunnel because of what it is used for, with quarantine of its port, and its owner's suspension if asked for.
-- Out: one row, owner_id null where there is no such tunnel. outcome: as of administer_user, and 'closed' (it was before).
CREATE FUNCTION suspend_tunnel(actor_id_ uuid, tunnel_id_ uuid, reason_ text, quarantine_hours_ integer, suspend_owner boolean)
RETURNS TABLE (outcome text, owner_id uuid, closed jsonb) LANGUAGE plpgsql AS $$
DECLARE
  tunnel tunnels%ROWTYPE;
BEGIN
  PERFORM lock_capacity();
  SELECT * INTO tunnel FROM tunnels WHERE id = tunnel_id_;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'not_found', NULL::uuid, '[]'::jsonb;
  ELSIF tunnel.state = 'closed' THEN
    RETURN QUERY SELECT 'closed', tunnel.user_id, '[]'::jsonb;
  ELSIF suspend_owner THEN
    RETURN QUERY SELECT u.outcome, tunnel.user_id, u.closed
      FROM administer_user(actor_id_, tunnel.user_id, NULL, NULL, NULL, NULL, true, reason_, quarantine_hours_) u;
  ELSE
    RETURN QUERY SELECT 'updated', tunnel.user_id, close_tunnels(ARRAY[tunnel_id_], 'suspended', actor_id_, quarantine_hours_, reason_);
  END IF;
END $$;

-- A backend says that it runs and what its circuit breakers are like, and hears which of them to close.
-- In:  views  [{ serverId, state, stats }], all of them
--      stale_seconds  another backend that has said nothing for so long is gone, and its views with it
-- Out: ids of servers whose breaker an administrator wants closed. Each is said once.
CREATE FUNCTION exchange_breakers(backend_id_ uuid, views jsonb, stale_seconds integer) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM backends WHERE id IN (
    SELECT id FROM backends WHERE seen_at < now() - make_interval(secs => stale_seconds) AND id <> backend_id_ FOR UPDATE SKIP LOCKED);
  INSERT INTO backends (id, seen_at) VALUES (backend_id_, now()) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at;
  -- in one order, as a reset locks them
  PERFORM FROM breaker_views WHERE backend_id = backend_id_ ORDER BY server_id FOR UPDATE;
  RETURN QUERY SELECT server_id FROM breaker_views WHERE backend_id = backend_id_ AND reset_requested;
  DELETE FROM breaker_views WHERE backend_id = backend_id_
    AND server_id NOT IN (SELECT v ->> 'serverId' FROM jsonb_array_elements(views) v);
  INSERT INTO breaker_views (backend_id, server_id, state, stats, updated_at)
  SELECT backend_id_, v ->> 'serverId', v ->> 'state', v -> 'stats', now() FROM jsonb_array_elements(views) v
  ON CONFLICT (backend_id, server_id) DO UPDATE SET
    state = excluded.state, stats = excluded.stats, reset_requested = false, updated_at = excluded.updated_at;
END $$;
