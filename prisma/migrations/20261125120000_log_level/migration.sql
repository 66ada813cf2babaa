-- How much all programs log for a time, in place of what each was started with. One row, or none.
CREATE TABLE "log_level" (
  "only_row" BOOLEAN NOT NULL DEFAULT true,
  "level" TEXT NOT NULL,
  "until" TIMESTAMPTZ(3) NOT NULL,

  CONSTRAINT "log_level_pkey" PRIMARY KEY ("only_row"),
  CONSTRAINT "log_level_only_row_check" CHECK ("only_row"),
  CONSTRAINT "log_level_level_check" CHECK ("level" IN ('fatal', 'error', 'warn', 'info', 'debug', 'trace'))
);
