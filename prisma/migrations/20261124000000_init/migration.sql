-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "public";

-- CreateEnum
CREATE TYPE "role" AS ENUM ('user', 'admin');

-- CreateEnum
CREATE TYPE "plan" AS ENUM ('free', 'pro', 'enterprise');

-- CreateEnum
CREATE TYPE "server_state" AS ENUM ('offline', 'online', 'draining', 'disabled');

-- CreateEnum
CREATE TYPE "tunnel_state" AS ENUM ('pending', 'active', 'offline', 'closed');

-- CreateTable
CREATE TABLE "users" (
    "id" UUID NOT NULL,
    "email" TEXT NOT NULL,
    "name" TEXT,
    "password_hash" TEXT NOT NULL,
    "role" "role" NOT NULL DEFAULT 'user',
    "plan" "plan" NOT NULL DEFAULT 'free',
    "suspended_at" TIMESTAMPTZ(3),
    "open_tunnels" INTEGER NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "auth_sessions" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "auth_sessions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "refresh_tokens" (
    "hash" BYTEA NOT NULL,
    "session_id" UUID NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "spent_at" TIMESTAMPTZ(3),

    CONSTRAINT "refresh_tokens_pkey" PRIMARY KEY ("hash")
);

-- CreateTable
CREATE TABLE "servers" (
    "id" TEXT NOT NULL,
    "host" TEXT NOT NULL,
    "port" INTEGER NOT NULL,
    "location" TEXT NOT NULL,
    "state" "server_state" NOT NULL DEFAULT 'offline',
    "max_tunnels" INTEGER NOT NULL,
    "max_bandwidth_mbps" INTEGER NOT NULL,
    "port_min" INTEGER,
    "port_max" INTEGER,
    "instance_id" UUID,
    "drain_requested" BOOLEAN NOT NULL DEFAULT false,
    "admin_url" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "heartbeat_at" TIMESTAMPTZ(3),
    "open_tunnels" INTEGER NOT NULL DEFAULT 0,
    "connections" INTEGER NOT NULL DEFAULT 0,
    "bandwidth_mbps" DOUBLE PRECISION NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "servers_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "tunnels" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "server_id" TEXT NOT NULL,
    "port" INTEGER NOT NULL,
    "name" TEXT,
    "local_port" INTEGER,
    "state" "tunnel_state" NOT NULL DEFAULT 'pending',
    "close_reason" TEXT,
    "sealed_key" BYTEA NOT NULL,
    "max_connections" INTEGER,
    "session_id" UUID,
    "epoch" INTEGER NOT NULL DEFAULT 0,
    "client_address" TEXT,
    "connected_at" TIMESTAMPTZ(3),
    "idle_deadline" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "closed_at" TIMESTAMPTZ(3),

    CONSTRAINT "tunnels_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "users_email_key" ON "users"("email");

-- CreateIndex
CREATE INDEX "auth_sessions_user_id_idx" ON "auth_sessions"("user_id");

-- CreateIndex
CREATE INDEX "auth_sessions_expires_at_idx" ON "auth_sessions"("expires_at");

-- CreateIndex
CREATE INDEX "refresh_tokens_session_id_idx" ON "refresh_tokens"("session_id");

-- CreateIndex
CREATE INDEX "servers_state_lease_until_idx" ON "servers"("state", "lease_until");

-- CreateIndex
CREATE INDEX "tunnels_user_id_id_idx" ON "tunnels"("user_id", "id");

-- CreateIndex
CREATE INDEX "tunnels_idle_deadline_idx" ON "tunnels"("idle_deadline") WHERE (idle_deadline IS NOT NULL);

-- CreateIndex
CREATE INDEX "tunnels_expires_at_idx" ON "tunnels"("expires_at") WHERE (expires_at IS NOT NULL AND state <> 'closed'::tunnel_state);

-- CreateIndex
CREATE UNIQUE INDEX "tunnels_open_port_key" ON "tunnels"("server_id", "port") WHERE (state <> 'closed'::tunnel_state);

-- CreateIndex
CREATE UNIQUE INDEX "tunnels_open_name_key" ON "tunnels"("user_id", "name") WHERE (state <> 'closed'::tunnel_state);

-- AddForeignKey
ALTER TABLE "auth_sessions" ADD CONSTRAINT "auth_sessions_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "refresh_tokens" ADD CONSTRAINT "refresh_tokens_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "auth_sessions"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tunnels" ADD CONSTRAINT "tunnels_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tunnels" ADD CONSTRAINT "tunnels_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;


-- What Prisma's schema cannot say.

ALTER TABLE "users" ADD CONSTRAINT "users_email_lower_check" CHECK (email = lower(email));
ALTER TABLE "users" ADD CONSTRAINT "users_open_tunnels_check" CHECK (open_tunnels >= 0);
ALTER TABLE "servers" ADD CONSTRAINT "servers_open_tunnels_check" CHECK (open_tunnels >= 0);
ALTER TABLE "servers" ADD CONSTRAINT "servers_ports_check" CHECK (port_min BETWEEN 1 AND port_max AND port_max <= 65535);
ALTER TABLE "tunnels" ADD CONSTRAINT "tunnels_closed_check" CHECK ((state = 'closed') = (closed_at IS NOT NULL));

-- Counters are kept by this trigger and by nothing else, so that no path can forget one.
CREATE FUNCTION count_open_tunnels() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was integer := CASE WHEN TG_OP = 'INSERT' OR OLD.state = 'closed' THEN 0 ELSE 1 END;
  is_ integer := CASE WHEN TG_OP = 'DELETE' OR NEW.state = 'closed' THEN 0 ELSE 1 END;
BEGIN
  IF TG_OP = 'UPDATE' AND (OLD.server_id, OLD.user_id) IS DISTINCT FROM (NEW.server_id, NEW.user_id) THEN
    RAISE EXCEPTION 'a tunnel changes neither server nor user';
  END IF;
  IF was <> is_ THEN
    UPDATE users SET open_tunnels = open_tunnels + is_ - was WHERE id = COALESCE(NEW.user_id, OLD.user_id);
    UPDATE servers SET open_tunnels = open_tunnels + is_ - was WHERE id = COALESCE(NEW.server_id, OLD.server_id);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER count_open_tunnels AFTER INSERT OR DELETE OR UPDATE OF state, server_id, user_id ON tunnels
  FOR EACH ROW EXECUTE FUNCTION count_open_tunnels();

-- One admission or closing at a time, over all backends, until the transaction ends. Taken before any row is
-- locked, so that no two of them can deadlock; held for one round trip.
CREATE FUNCTION lock_capacity() RETURNS void LANGUAGE sql AS $$
  SELECT pg_advisory_xact_lock(hashtext('bore-platform.capacity'))
$$;

-- Tunnels that may be open at once over all servers: the total set by the operator (null: none set) or what the
-- online servers can carry, whichever is less, minus the reserved share.
CREATE FUNCTION system_capacity(total_ integer, reserved_percent integer) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT floor(least(total_, coalesce(sum(max_tunnels), 0)) * (100 - reserved_percent) / 100.0)::bigint
  FROM servers WHERE state IN ('online', 'draining') AND lease_until > now()
$$;

-- A free public port of a server, or null. Few random tries first: they find one at once while the range is not
-- nearly full; then the lowest free one.
CREATE FUNCTION free_port(server_id_ text, min_ integer, max_ integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  candidate integer;
BEGIN
  FOR i IN 1..16 LOOP
    candidate := min_ + floor(random() * (max_ - min_ + 1))::integer;
    IF NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = server_id_ AND t.port = candidate AND t.state <> 'closed') THEN
      RETURN candidate;
    END IF;
  END LOOP;
  RETURN (SELECT p FROM generate_series(min_, max_) p
          WHERE NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = server_id_ AND t.port = p AND t.state <> 'closed')
          LIMIT 1);
END $$;

-- Checks quota and capacity, chooses a server and a port, and takes them (G1).
-- In:  user_limit           open tunnels of this user's plan
--      total_, reserved_    TOTAL_SYSTEM_CAPACITY (null: none), RESERVED_CAPACITY_PERCENT; 0 for who may use the reserve
--      asked_port           null: any
--      asked_location       null: any; another location is taken when this one is full
--      avoid                ids of servers not to use now
--      idle_seconds, ttl_seconds (null: none)
-- Out: one row. outcome: 'opened' with server and port, else 'user_suspended', 'quota_exceeded', 'name_taken',
--      'port_out_of_range' (no online server has it), 'port_taken', 'no_capacity'.
CREATE FUNCTION open_tunnel(
  id_ uuid, user_id_ uuid, user_limit integer, total_ integer, reserved_ integer, asked_port integer, asked_location text,
  avoid text[], name_ text, local_port_ integer, sealed_key_ bytea, max_connections_ integer, idle_seconds integer, ttl_seconds integer
) RETURNS TABLE (outcome text, server_id text, port integer) LANGUAGE plpgsql AS $$
DECLARE
  account users%ROWTYPE;
  chosen servers%ROWTYPE;
  chosen_port integer;
BEGIN
  PERFORM lock_capacity();

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
    chosen_port := CASE
      WHEN asked_port IS NULL THEN free_port(chosen.id, chosen.port_min, chosen.port_max)
      WHEN NOT EXISTS (SELECT FROM tunnels t WHERE t.server_id = chosen.id AND t.port = asked_port AND t.state <> 'closed') THEN asked_port
    END;
    CONTINUE WHEN chosen_port IS NULL;
    INSERT INTO tunnels (id, user_id, server_id, port, name, local_port, sealed_key, max_connections, idle_deadline, expires_at)
    VALUES (id_, user_id_, chosen.id, chosen_port, name_, local_port_, sealed_key_, max_connections_,
            now() + make_interval(secs => idle_seconds), now() + make_interval(secs => ttl_seconds));
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
