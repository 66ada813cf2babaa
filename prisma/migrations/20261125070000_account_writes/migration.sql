-- Unlogged: it is written with every change that an account makes, and wanted by readers of the primary alone. A crash
-- empties it, and an empty table means that nobody knows: all reads stay on the primary until a backend sets the floor anew
-- (src/platform/database/read-fence.ts).

-- CreateTable
CREATE UNLOGGED TABLE "account_writes" (
    "account_id" UUID NOT NULL,
    "position" BIGINT NOT NULL,
    "pending" INTEGER NOT NULL DEFAULT 0,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "account_writes_pkey" PRIMARY KEY ("account_id")
);
