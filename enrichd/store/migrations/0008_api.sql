-- What the API's lists and figures need: its questions must cost the same over a million jobs.

-- Jobs in the states that are few beside the rest, newest first in each. `pending` has its own index
-- by workspace and `completed` is what nearly all jobs are, so neither is here: a job that goes well
-- at once never enters it.
create index enrichment_jobs_side on enrichment_jobs (workspace_id, status, id)
    where status in ('scheduled', 'waiting', 'failed', 'dead_letter', 'cancelled');
