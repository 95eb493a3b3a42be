-- What providers answered, and what it cost.

-- One row a question. Without a fresh answer it says who is asking right now, so that nobody else
-- pays for the same: his lease ends by itself. `pending` is a question that is answered later; its
-- lease lasts until then. Answers are text and not jsonb: what comes out must be what went in, and
-- jsonb turns 1e16 into an integer.
create table enrichment_provider_cache (
    workspace_id text        not null,
    cache_key    bytea       not null,
    provider_id  text        not null,
    operation    text        not null,
    outcome      text        check (outcome in ('found', 'noMatch', 'suppressed', 'pending')),
    answer       text,
    subjects     bytea[]     not null default '{}',
    cost_credits numeric     not null default 0,
    bought_for   uuid,
    fetched_at   timestamptz,
    expires_at   timestamptz,
    asked_by     uuid,
    asked_for    uuid,
    asked_until  timestamptz,
    primary key (workspace_id, cache_key)
) with (fillfactor = 70, toast_tuple_target = 256);
comment on column enrichment_provider_cache.subjects is
    'Keyed hashes of the email addresses in the question and the answer: what erasure looks for.';
comment on column enrichment_provider_cache.bought_for is
    'The job and lead that the answer was bought for: in a later run of theirs it still has its cost.';
comment on column enrichment_provider_cache.cost_credits is
    'All that was paid for it for whom it was bought, calls included that brought no answer; those alone keep a row for a day.';
comment on column enrichment_provider_cache.asked_by is
    'The call under way: its reservation has the same id.';
comment on column enrichment_provider_cache.asked_for is
    'The job that the call is made for: when its run is over or its worker dead, so is the lease.';
create index enrichment_provider_cache_expiry on enrichment_provider_cache (expires_at);
create index enrichment_provider_cache_leases on enrichment_provider_cache (asked_until)
 where outcome is null or outcome = 'pending';
create index enrichment_provider_cache_subjects on enrichment_provider_cache using gin (subjects);

-- What a cap counts: `day:2026-11-23` (everybody), `day:2026-11-23:acme`, `month:2026-11:acme`, `job:<id>`.
create table enrichment_credit_counters (
    counter    text        not null primary key,
    spent      numeric     not null default 0,
    reserved   numeric     not null default 0,
    updated_at timestamptz not null default now()
) with (fillfactor = 50);

-- Credits promised to calls that have not ended. A call whose process died is counted as spent when
-- its time is over: it may have been paid.
create table enrichment_credit_reservations (
    id           uuid        not null primary key,
    workspace_id text        not null,
    job_id       uuid,
    provider_id  text        not null,
    operation    text        not null,
    credits      numeric     not null,
    counters     text[]      not null,
    expires_at   timestamptz not null
);
create index enrichment_credit_reservations_expiry on enrichment_credit_reservations (expires_at);
create index enrichment_credit_counters_age on enrichment_credit_counters (updated_at);

-- What a workspace may spend where the common caps are not the right ones; null is the common cap.
create table enrichment_budgets (
    workspace_id          text        not null primary key,
    credits_per_day_max   numeric     check (credits_per_day_max >= 0),
    credits_per_month_max numeric     check (credits_per_month_max >= 0),
    updated_at            timestamptz not null default now()
);

-- Use by day, workspace and provider, for `enrichctl providers` and for the bill.
create table enrichment_provider_use (
    day          date    not null,
    workspace_id text    not null,
    provider_id  text    not null,
    operation    text    not null,
    calls        bigint  not null default 0,
    answered     bigint  not null default 0,
    no_match     bigint  not null default 0,
    errors       bigint  not null default 0,
    cache_hits   bigint  not null default 0,
    credits      numeric not null default 0,
    primary key (day, workspace_id, provider_id, operation)
) with (fillfactor = 50);

-- What a question's row means to a job that wants to ask the same:
--   kept      there is an answer
--   mine      the answer is still to come, to this job
--   pending   the answer is still to come, to another job
--   orphaned  the answer is still to come, to a job that has ended
--   asked     another job is asking right now
--   free      nobody is; also for the job's own lease: that run died, or this one would not ask
create function enrichment_question_state(
    in_outcome     text,
    in_expires_at  timestamptz,
    in_asked_for   uuid,
    in_asked_until timestamptz,
    in_job         uuid
) returns text
language plpgsql stable
as $$
declare
    asker text;
begin
    if in_outcome <> 'pending' and (in_expires_at is null or in_expires_at > now()) then
        return 'kept';
    elsif in_outcome = 'pending' and in_asked_for = in_job then
        return 'mine';
    elsif in_asked_until is null or in_asked_until <= now() or in_asked_for = in_job then
        return 'free';
    end if;
    select case when worker.state = 'dead' then 'dead' else job.status end
      into asker
      from enrichment_jobs as job
      left join enrichment_workers as worker on worker.id = job.worker_id
     where job.id = in_asked_for;
    if in_outcome = 'pending' then
        return case when asker in ('completed', 'failed', 'cancelled', 'dead_letter')
                    then 'orphaned' else 'pending' end;
    end if;
    -- An asker that is no job of the queue (a library, a test) has only its time.
    return case when coalesce(asker, 'processing') = 'processing' then 'asked' else 'free' end;
end
$$;

-- The counters that a call is counted in, with the most that each may reach; null is any amount.
create function enrichment_caps_of(
    in_workspace           text,
    in_job                 uuid,
    in_job_cap             numeric,
    in_day_cap             numeric,
    in_workspace_day_cap   numeric,
    in_workspace_month_cap numeric
) returns table (counter text, cap numeric, reason text)
language sql stable
as $$
    with today as (
        select to_char(now() at time zone 'utc', 'YYYY-MM-DD') as day,
               to_char(now() at time zone 'utc', 'YYYY-MM') as month
    )
    select caps.counter, caps.cap, caps.reason
      from today
      left join enrichment_budgets as budget on budget.workspace_id = in_workspace
     cross join lateral (values
         (1, 'job:' || in_job, in_job_cap, 'would_exceed_max_credits'),
         (2, 'day:' || today.day || ':' || in_workspace,
          coalesce(budget.credits_per_day_max, in_workspace_day_cap),
          'would_exceed_workspace_credits'),
         (3, 'month:' || today.month || ':' || in_workspace,
          coalesce(budget.credits_per_month_max, in_workspace_month_cap),
          'would_exceed_workspace_credits'),
         (4, 'day:' || today.day, in_day_cap, 'would_exceed_daily_credits')
     ) as caps(place, counter, cap, reason)
     where caps.place > 1 or in_job_cap is not null
     order by caps.place
$$;

-- Begin calls: look into the cache, and for what is not there take the lease and set the credits
-- aside. Answers for each question, by its place in the arrays, a verdict:
--   found, noMatch, suppressed   the kept answer
--   go                           ask; the caller has the lease and the credits until in_lease_s
--   wait                         somebody is asking the same: come again in a moment
--   pending, resume              the answer is still to come: to another job, to this one
--   would_exceed_…               a cap is in the way
-- `cost` is what was paid for the question so far, for the same lead of the same job.
-- Locks are taken in one order by all functions here: questions by workspace and key, reservations
-- by id, counters by name, then use. Calling it again with the same call ids does the same.
create function enrichment_begin_calls(
    in_calls               uuid[],
    in_jobs                uuid[],
    in_buyers              uuid[],
    in_workspaces          text[],
    in_keys                bytea[],
    in_providers           text[],
    in_operations          text[],
    in_credits             numeric[],
    in_job_caps            numeric[],
    in_day_cap             numeric,
    in_workspace_day_cap   numeric,
    in_workspace_month_cap numeric,
    in_lease_s             double precision,
    in_may_ask             boolean[]
) returns table (
    place      integer,
    verdict    text,
    call_id    uuid,
    answer     text,
    fetched_at timestamptz,
    left_s     double precision,
    cost       numeric
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    question record;
    open     integer[] := '{}';
    asking   integer[] := '{}';
    refused  uuid[] := '{}';
    names    text[];
    used     numeric[];
    added    numeric[];
    paid     numeric[];
    refusal  text;
    spot     integer;
begin
    -- Without a lock: most questions end here, and so do those who wait.
    for question in
        select asked.place, kept.outcome, kept.asked_by, kept.answer, kept.fetched_at,
               extract(epoch from coalesce(kept.expires_at, kept.asked_until) - now()) as left_s,
               case when kept.bought_for = asked.buyer then kept.cost_credits end as cost,
               case when kept.workspace_id is null or kept.asked_by = asked.call then 'free'
                    else enrichment_question_state(kept.outcome, kept.expires_at, kept.asked_for,
                                                   kept.asked_until, asked.job)
               end as state
          from unnest(in_calls, in_jobs, in_buyers, in_workspaces, in_keys)
               with ordinality as asked(call, job, buyer, workspace, key, place)
          left join enrichment_provider_cache as kept
            on kept.workspace_id = asked.workspace and kept.cache_key = asked.key
    loop
        if question.state in ('free', 'orphaned') then
            if in_may_ask[question.place] then
                open := open || question.place::integer;
            else
                place := question.place;
                verdict := 'unknown';
                return next;
            end if;
            continue;
        end if;
        place := question.place;
        verdict := case question.state when 'kept' then question.outcome
                                       when 'mine' then 'resume'
                                       when 'asked' then 'wait'
                                       else question.state end;
        call_id := question.asked_by;
        answer := question.answer;
        fetched_at := question.fetched_at;
        left_s := question.left_s;
        cost := question.cost;
        return next;
    end loop;
    if open = '{}' then
        return;
    end if;

    paid := array_fill(null::numeric, array[cardinality(in_calls)]);
    for question in
        insert into enrichment_provider_cache as kept
               (workspace_id, cache_key, provider_id, operation, bought_for, asked_by, asked_for,
                asked_until)
        select distinct on (in_workspaces[asked.place], in_keys[asked.place])
               in_workspaces[asked.place], in_keys[asked.place], in_providers[asked.place],
               in_operations[asked.place], in_buyers[asked.place], in_calls[asked.place],
               in_jobs[asked.place], now() + make_interval(secs => in_lease_s)
          from unnest(open) as asked(place)
         order by in_workspaces[asked.place], in_keys[asked.place], asked.place
            on conflict (workspace_id, cache_key) do update
           set outcome = case when kept.outcome = 'pending' and kept.asked_until <= now()
                              then null else kept.outcome end,
               -- What is still to come to a job that ended goes over to this one, which finds it
               -- as its own when it comes again.
               asked_by = case when kept.outcome = 'pending' and kept.asked_until > now()
                               then kept.asked_by else excluded.asked_by end,
               asked_until = case when kept.outcome = 'pending' and kept.asked_until > now()
                                  then kept.asked_until else excluded.asked_until end,
               asked_for = excluded.asked_for,
               -- A call of this job's that never ended, because its run died, may have been paid.
               cost_credits = case when kept.bought_for = excluded.bought_for
                                   then kept.cost_credits else 0 end
                              + case when kept.outcome is null
                                          and kept.asked_for = excluded.asked_for
                                          and kept.asked_by <> excluded.asked_by
                                     then coalesce((select promised.credits
                                                      from enrichment_credit_reservations
                                                           as promised
                                                     where promised.id = kept.asked_by), 0)
                                     else 0 end,
               bought_for = excluded.bought_for
         where kept.asked_by = excluded.asked_by
            or enrichment_question_state(kept.outcome, kept.expires_at, kept.asked_for,
                                         kept.asked_until, excluded.asked_for)
               in ('free', 'orphaned')
        returning kept.asked_by, kept.cost_credits
    loop
        spot := array_position(in_calls, question.asked_by);
        if spot is not null then
            asking := asking || spot;
            paid[spot] := question.cost_credits;
        end if;
    end loop;

    call_id := null;
    answer := null;
    fetched_at := null;
    left_s := null;
    cost := null;
    foreach spot in array open loop
        if spot <> all (asking) then
            place := spot;
            verdict := 'wait';
            return next;
        end if;
    end loop;

    select array_agg(distinct caps.counter order by caps.counter)
      into names
      from unnest(asking) as asked(place)
     cross join enrichment_caps_of(in_workspaces[asked.place], in_jobs[asked.place],
                                   in_job_caps[asked.place], in_day_cap, in_workspace_day_cap,
                                   in_workspace_month_cap) as caps
     where in_credits[asked.place] > 0;
    if names is not null then
        insert into enrichment_credit_counters (counter)
        select name from unnest(names) as name
            on conflict do nothing;
        select array_agg(locked.spent + locked.reserved order by locked.counter)
          into used
          from (select counters.counter, counters.spent, counters.reserved
                  from enrichment_credit_counters as counters
                 where counters.counter = any (names)
                 order by counters.counter
                   for update) as locked;
        added := array_fill(0::numeric, array[cardinality(names)]);
    else
        -- Nothing but leases: a crash of the server may take them.
        perform set_config('synchronous_commit', 'off', true);
    end if;

    for question in
        select asked.place, in_calls[asked.place] as call, in_credits[asked.place] as credits,
               needed.counters, needed.caps, needed.reasons
          from unnest(asking) as asked(place)
         cross join lateral (
               select array_agg(caps.counter) as counters, array_agg(caps.cap) as caps,
                      array_agg(caps.reason) as reasons
                 from enrichment_caps_of(in_workspaces[asked.place], in_jobs[asked.place],
                                         in_job_caps[asked.place], in_day_cap,
                                         in_workspace_day_cap, in_workspace_month_cap) as caps
                where in_credits[asked.place] > 0
               ) as needed
         order by asked.place
    loop
        refusal := null;
        if question.credits > 0 and not exists (
            select from enrichment_credit_reservations as known where known.id = question.call
        ) then
            for cap in 1 .. cardinality(question.counters) loop
                spot := array_position(names, question.counters[cap]);
                if used[spot] + question.credits > question.caps[cap] then
                    refusal := question.reasons[cap];
                    exit;
                end if;
            end loop;
            if refusal is null then
                for cap in 1 .. cardinality(question.counters) loop
                    spot := array_position(names, question.counters[cap]);
                    used[spot] := used[spot] + question.credits;
                    added[spot] := added[spot] + question.credits;
                end loop;
                insert into enrichment_credit_reservations
                       (id, workspace_id, job_id, provider_id, operation, credits, counters,
                        expires_at)
                values (question.call, in_workspaces[question.place], in_jobs[question.place],
                        in_providers[question.place], in_operations[question.place],
                        question.credits, question.counters,
                        now() + make_interval(secs => in_lease_s));
            else
                refused := refused || question.call;
            end if;
        end if;
        place := question.place;
        call_id := question.call;
        verdict := coalesce(refusal, 'go');
        cost := paid[question.place];
        return next;
    end loop;

    update enrichment_credit_counters as counters
       set reserved = counters.reserved + new.credits, updated_at = now()
      from unnest(names, added) as new(name, credits)
     where counters.counter = new.name and new.credits > 0;
    if refused <> '{}' then
        perform enrichment_drop_leases(in_calls, in_workspaces, in_keys, refused);
    end if;
end
$$;

-- Give back the leases of some of these calls; the caller holds the locks of their rows. What was
-- paid without an answer is remembered, for the job's next run.
create function enrichment_drop_leases(
    in_calls uuid[], in_workspaces text[], in_keys bytea[], in_dropped uuid[]
) returns void
language sql volatile
as $$
    delete from enrichment_provider_cache as kept
     using unnest(in_calls, in_workspaces, in_keys) as ended(call, workspace, key)
     where kept.workspace_id = ended.workspace
       and kept.cache_key = ended.key
       and kept.asked_by = ended.call
       and kept.cost_credits = 0
       and ended.call = any (in_dropped);
    update enrichment_provider_cache as kept
       set outcome = null, answer = null, subjects = '{}', fetched_at = null, expires_at = null,
           asked_by = null, asked_for = null, asked_until = now()
      from unnest(in_calls, in_workspaces, in_keys) as ended(call, workspace, key)
     where kept.workspace_id = ended.workspace
       and kept.cache_key = ended.key
       and kept.asked_by = ended.call
       and kept.cost_credits > 0
       and ended.call = any (in_dropped)
$$;

-- End calls: keep their answers, settle their credits, count them, give back their leases.
-- in_outcomes: found, noMatch, suppressed, pending, error, free (no call was made). An answer that is
-- null is not kept. in_costs: null is what was set aside, for a call that may have been paid.
-- in_subjects: bytea[] literals. in_keeps_s: null is for ever; for pending, until its deadline.
-- Calling it again with the same calls changes no counter a second time.
create function enrichment_end_calls(
    in_calls      uuid[],
    in_buyers     uuid[],
    in_workspaces text[],
    in_keys       bytea[],
    in_providers  text[],
    in_operations text[],
    in_outcomes   text[],
    in_answers    text[],
    in_subjects   text[],
    in_keeps_s    double precision[],
    in_costs      numeric[]
) returns void
language plpgsql volatile
as $$
declare
    leased   uuid[];
    stored   uuid[];
    settled  uuid[];
    reserved numeric[];
begin
    select array_agg(locked.asked_by)
      into leased
      from (select kept.asked_by
              from enrichment_provider_cache as kept
              join unnest(in_calls, in_workspaces, in_keys) as ended(call, workspace, key)
                on kept.workspace_id = ended.workspace and kept.cache_key = ended.key
             order by kept.workspace_id, kept.cache_key
               for update of kept) as locked
     where locked.asked_by = any (in_calls);

    -- What is known of a person who wants to be left alone is not kept, however late it comes.
    with new as (
        select distinct on (ended.workspace, ended.key)
               ended.*, ended.subjects::bytea[] as people
          from unnest(in_calls, in_buyers, in_workspaces, in_keys, in_providers, in_operations,
                      in_outcomes, in_answers, in_subjects, in_keeps_s, in_costs)
               as ended(call, buyer, workspace, key, provider, operation, outcome, answer, subjects,
                        keep_s, cost)
         where ended.outcome = 'suppressed'
            or (ended.answer is not null
                and not exists (select from enrichment_suppressions as unwanted
                                 where unwanted.email_hmac = any (ended.subjects::bytea[])
                                   and unwanted.workspace_id in (ended.workspace, '*')))
         order by ended.workspace, ended.key
    ),
    kept as (
        insert into enrichment_provider_cache as kept
               (workspace_id, cache_key, provider_id, operation, outcome, answer, subjects,
                cost_credits, bought_for, fetched_at, expires_at, asked_by, asked_until)
        select new.workspace, new.key, new.provider, new.operation, new.outcome, new.answer,
               new.people, coalesce(new.cost, 0), new.buyer, now(),
               case when new.outcome <> 'pending' then now() + make_interval(secs => new.keep_s) end,
               case when new.outcome = 'pending' then new.call end,
               case when new.outcome = 'pending' then now() + make_interval(secs => new.keep_s) end
          from new
         where new.outcome <> 'pending' or new.call = any (leased)
            on conflict (workspace_id, cache_key) do update
           set outcome = excluded.outcome, answer = excluded.answer, subjects = excluded.subjects,
               -- Without its lease this is the same call's end once more, or a late one.
               cost_credits = case when kept.bought_for is distinct from excluded.bought_for
                                   then excluded.cost_credits
                                   when kept.asked_by is null
                                   then greatest(kept.cost_credits, excluded.cost_credits)
                                   else kept.cost_credits + excluded.cost_credits end,
               bought_for = excluded.bought_for,
               fetched_at = excluded.fetched_at, expires_at = excluded.expires_at, asked_by = excluded.asked_by,
               asked_until = excluded.asked_until,
               asked_for = case when excluded.outcome = 'pending' then kept.asked_for end
    )
    select array_agg(new.call) into stored from new;
    update enrichment_provider_cache as kept
       set cost_credits = kept.cost_credits + coalesce(ended.cost, promised.credits)
      from unnest(in_calls, in_workspaces, in_keys, in_outcomes, in_costs)
           as ended(call, workspace, key, outcome, cost)
      join enrichment_credit_reservations as promised on promised.id = ended.call
     where ended.outcome = 'error'
       and kept.workspace_id = ended.workspace
       and kept.cache_key = ended.key
       and kept.asked_by = ended.call
       and coalesce(ended.cost, promised.credits) > 0;
    perform enrichment_drop_leases(
        in_calls, in_workspaces, in_keys,
        array(select call from unnest(in_calls) as call
               where stored is null or call <> all (stored)));

    perform from enrichment_credit_reservations
      where id = any (in_calls)
      order by id
        for update;
    update enrichment_credit_reservations as later
       set expires_at = now() + make_interval(secs => ended.keep_s)
      from unnest(in_calls, in_outcomes, in_keeps_s) as ended(call, outcome, keep_s)
     where later.id = ended.call and ended.outcome = 'pending';
    perform from enrichment_credit_counters
      where counter in (select unnest(counters) from enrichment_credit_reservations
                         where id = any (in_calls))
      order by counter
        for update;
    with gone as (
        delete from enrichment_credit_reservations as promised
         using unnest(in_calls, in_outcomes, in_costs) as ended(call, outcome, cost)
         where promised.id = ended.call and ended.outcome <> 'pending'
        returning promised.id, promised.credits, promised.counters,
                  coalesce(ended.cost, promised.credits) as cost
    ),
    booked as (
        update enrichment_credit_counters as counters
           set reserved = counters.reserved - sums.credits, spent = counters.spent + sums.cost,
               updated_at = now()
          from (select counter, sum(gone.credits) as credits, sum(gone.cost) as cost
                  from gone cross join unnest(gone.counters) as counter
                 group by counter) as sums
         where counters.counter = sums.counter
    )
    select array_agg(gone.id), array_agg(gone.credits) into settled, reserved from gone;

    insert into enrichment_provider_use as known
           (day, workspace_id, provider_id, operation, calls, answered, no_match, errors, credits)
    select (now() at time zone 'utc')::date, ended.workspace, ended.provider, ended.operation,
           count(*), count(*) filter (where ended.outcome = 'found'),
           count(*) filter (where ended.outcome in ('noMatch', 'suppressed')),
           count(*) filter (where ended.outcome = 'error'),
           sum(coalesce(ended.cost, reserved[array_position(settled, ended.call)], 0))
      from unnest(in_calls, in_workspaces, in_providers, in_operations, in_outcomes, in_costs)
           as ended(call, workspace, provider, operation, outcome, cost)
     where ended.outcome not in ('pending', 'free')
       and (ended.call = any (leased) or ended.call = any (settled))
     group by ended.workspace, ended.provider, ended.operation
     order by ended.workspace, ended.provider, ended.operation
        on conflict (day, workspace_id, provider_id, operation) do update
       set calls = known.calls + excluded.calls, answered = known.answered + excluded.answered,
           no_match = known.no_match + excluded.no_match, errors = known.errors + excluded.errors,
           credits = known.credits + excluded.credits;
end
$$;

-- Count the credits of calls as spent whose process never said how they ended; answers how many.
create function enrichment_end_forgotten_calls(in_limit integer) returns integer
language plpgsql volatile
as $$
declare
    forgotten uuid[];
begin
    select array_agg(locked.id)
      into forgotten
      from (select id
              from enrichment_credit_reservations
             where expires_at <= now()
             order by expires_at
             limit in_limit
               for update skip locked) as locked;
    if forgotten is null then
        return 0;
    end if;
    perform from enrichment_credit_counters
      where counter in (select unnest(counters) from enrichment_credit_reservations
                         where id = any (forgotten))
      order by counter
        for update;
    with gone as (
        delete from enrichment_credit_reservations where id = any (forgotten)
        returning workspace_id, provider_id, operation, credits, counters
    ),
    booked as (
        update enrichment_credit_counters as counters
           set reserved = counters.reserved - sums.credits, spent = counters.spent + sums.credits,
               updated_at = now()
          from (select counter, sum(gone.credits) as credits
                  from gone cross join unnest(gone.counters) as counter
                 group by counter) as sums
         where counters.counter = sums.counter
    )
    insert into enrichment_provider_use as known
           (day, workspace_id, provider_id, operation, calls, errors, credits)
    select (now() at time zone 'utc')::date, workspace_id, provider_id, operation, count(*),
           count(*), sum(credits)
      from gone
     group by workspace_id, provider_id, operation
     order by workspace_id, provider_id, operation
        on conflict (day, workspace_id, provider_id, operation) do update
       set calls = known.calls + excluded.calls, errors = known.errors + excluded.errors,
           credits = known.credits + excluded.credits;
    return cardinality(forgotten);
end
$$;
