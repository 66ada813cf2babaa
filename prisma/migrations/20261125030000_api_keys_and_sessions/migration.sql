-- AlterTable
ALTER TABLE "auth_sessions" ADD COLUMN     "client_address" TEXT,
ADD COLUMN     "last_used_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
ADD COLUMN     "user_agent" TEXT;

-- CreateTable
CREATE TABLE "api_keys" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "hash" BYTEA NOT NULL,
    "scopes" TEXT[],
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_used_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),

    CONSTRAINT "api_keys_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "api_keys_user_id_id_idx" ON "api_keys"("user_id", "id" DESC);

-- CreateIndex
CREATE INDEX "api_keys_revoked_at_idx" ON "api_keys"("revoked_at") WHERE (revoked_at IS NOT NULL);

-- CreateIndex
CREATE INDEX "api_keys_expires_at_idx" ON "api_keys"("expires_at") WHERE (expires_at IS NOT NULL);

-- DropIndex
DROP INDEX "auth_sessions_user_id_idx";

-- CreateIndex
CREATE INDEX "auth_sessions_user_id_id_idx" ON "auth_sessions"("user_id", "id" DESC);

-- CreateIndex
CREATE INDEX "auth_sessions_ended_at_idx" ON "auth_sessions"("ended_at") WHERE (ended_at IS NOT NULL);

-- DropIndex
DROP INDEX "refresh_tokens_session_id_idx";

-- CreateIndex
CREATE INDEX "refresh_tokens_session_id_spent_at_idx" ON "refresh_tokens"("session_id", "spent_at" DESC);

-- AddForeignKey
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;
