-- AlterTable
ALTER TABLE "servers" ADD COLUMN "peer_host" TEXT,
ADD COLUMN "peer_port" INTEGER;

-- Checks that a server which shares its public name with others has public ports of its own, as they name it (peer-link.ts).
-- In:  server_id_, min_, max_   who registers, with which public ports
--      host_                    the public name it gives; null: the one that it had, or default_host
-- Out: null, or the id of the server of that name whose ports these are: it is alive, or has tunnels that will come back.
--      One that has neither gives up its place, so that a server can be replaced under another id.
-- Locks capacity: one registration of such a server at a time, until its row is written.
CREATE FUNCTION claim_port_range(server_id_ text, host_ text, default_host text, min_ integer, max_ integer)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  name_ text;
  holder text;
BEGIN
  PERFORM lock_capacity();
  name_ := lower(coalesce(host_, (SELECT s.host FROM servers s WHERE s.id = server_id_), default_host));

  SELECT s.id INTO holder FROM servers s
  WHERE s.id <> server_id_ AND lower(s.host) = name_ AND s.peer_host IS NOT NULL
    AND s.port_min <= max_ AND s.port_max >= min_ AND (s.lease_until > now() OR s.open_tunnels > 0)
  ORDER BY s.id LIMIT 1;
  IF FOUND THEN RETURN holder; END IF;

  UPDATE servers s SET peer_host = NULL, peer_port = NULL
  WHERE s.id <> server_id_ AND lower(s.host) = name_ AND s.peer_host IS NOT NULL AND s.port_min <= max_ AND s.port_max >= min_;
  RETURN NULL;
END $$;
