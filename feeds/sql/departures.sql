CREATE TABLE IF NOT EXISTS public.departures (
    time_hour timestamptz NOT NULL,
    carrier text NOT NULL REFERENCES public.airlines,
    flight integer NOT NULL,
    tailnum text REFERENCES public.planes,
    origin text NOT NULL REFERENCES public.airports,
    dest text NOT NULL REFERENCES public.airports,
    dep_delay integer,
    import_batch_id uuid,
    PRIMARY KEY (time_hour, carrier, flight)
);
CREATE INDEX IF NOT EXISTS departures_import_batch_id ON public.departures (import_batch_id);
