-- Where a generation goes when its provider does not do it: an array of provider, provider_model and provider_input, in order of
-- preference; NULL for none.
ALTER TABLE generations ADD COLUMN fallbacks TEXT CHECK (fallbacks IS NULL OR json_valid(fallbacks));
