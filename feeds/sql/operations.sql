CREATE TABLE IF NOT EXISTS public.person (
    id text PRIMARY KEY,
    name text NOT NULL,
    phone text,
    email text DEFAULT 'unknown',
    details jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    import_batch_id uuid
);
CREATE TABLE IF NOT EXISTS public.location (
    id text PRIMARY KEY,
    lat numeric(9, 6) NOT NULL CHECK (lat BETWEEN -90 AND 90),
    lon numeric(9, 6) NOT NULL CHECK (lon BETWEEN -180 AND 180),
    import_batch_id uuid
);
CREATE TABLE IF NOT EXISTS public.journey_leg (
    id text PRIMARY KEY,
    person_id text NOT NULL REFERENCES public.person,
    from_location text REFERENCES public.location,
    mode text NOT NULL DEFAULT 'walk',
    duration integer CHECK (duration >= 0),
    import_batch_id uuid
);
CREATE INDEX IF NOT EXISTS person_import_batch_id ON public.person (import_batch_id);
CREATE INDEX IF NOT EXISTS location_import_batch_id ON public.location (import_batch_id);
CREATE INDEX IF NOT EXISTS journey_leg_import_batch_id ON public.journey_leg (import_batch_id);
