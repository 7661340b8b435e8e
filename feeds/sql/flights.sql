-- dest and tailnum have no foreign keys: the data has 7,602 and 50,094 rows that would break them.
CREATE TABLE IF NOT EXISTS public.flights (
    year integer NOT NULL,
    month integer NOT NULL CHECK (month BETWEEN 1 AND 12),
    day integer NOT NULL CHECK (day BETWEEN 1 AND 31),
    dep_time integer,
    sched_dep_time integer NOT NULL,
    dep_delay integer,
    arr_time integer,
    sched_arr_time integer NOT NULL,
    arr_delay integer,
    carrier text NOT NULL REFERENCES public.airlines,
    flight integer NOT NULL,
    tailnum text,
    origin text NOT NULL REFERENCES public.airports,
    dest text NOT NULL,
    air_time integer,
    distance integer NOT NULL CHECK (distance > 0),
    hour integer NOT NULL,
    minute integer NOT NULL,
    time_hour timestamptz NOT NULL,
    import_batch_id uuid,
    PRIMARY KEY (time_hour, carrier, flight)
);
CREATE INDEX IF NOT EXISTS flights_import_batch_id ON public.flights (import_batch_id);
