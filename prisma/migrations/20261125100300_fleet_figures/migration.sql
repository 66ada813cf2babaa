-- How full the fleet is, measured by one job for all backends: what a scrape of any of them shows, without counting anything itself.
CREATE TABLE "fleet_figures" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "measured_at" TIMESTAMPTZ(3) NOT NULL,
    "figures" JSONB NOT NULL,

    CONSTRAINT "fleet_figures_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "fleet_figures_one_row" CHECK ("id" = 1)
);
