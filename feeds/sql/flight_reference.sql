CREATE TABLE IF NOT EXISTS public.airlines (
    carrier text PRIMARY KEY,
    name text NOT NULL,
    import_batch_id uuid
);
CREATE TABLE IF NOT EXISTS public.airports (
    faa text PRIMARY KEY,
    name text NOT NULL,
    lat double precision NOT NULL CHECK (lat BETWEEN -90 AND 90),
    lon double precision NOT NULL CHECK (lon BETWEEN -180 AND 180),
    alt integer NOT NULL,
    tz integer NOT NULL,
    dst text NOT NULL,
    tzone text,
    import_batch_id uuid
);
CREATE TABLE IF NOT EXISTS public.planes (
    tailnum text PRIMARY KEY,
    year integer,
    type text NOT NULL,
    manufacturer text NOT NULL,
    model text NOT NULL,
    engines integer NOT NULL,
    seats integer NOT NULL,
    speed integer,
    engine text NOT NULL,
    import_batch_id uuid
);
CREATE INDEX IF NOT EXISTS airlines_import_batch_id ON public.airlines (import_batch_id);
CREATE INDEX IF NOT EXISTS airports_import_batch_id ON public.airports (import_batch_id);
CREATE INDEX IF NOT EXISTS planes_import_batch_id ON public.planes (import_batch_id);
