-- Rate limits: one truth for all processes and hosts.

-- What a provider allows a credential in a window of time, and the permits given out, counted by
-- hundredths of the window. operation is * for a limit that all operations share.
create table enrichment_rate_limits (
    bucket       text        not null,
    operation    text        not null default '*',
    window_s     integer     not null check (window_s > 0),
    calls_max    integer     check (calls_max > 0),
    calls_seen   integer     check (calls_seen > 0),
    seen_at      timestamptz,
    ring         integer[]   not null default '{}',
    head         bigint      not null default 0,
    soft_us      bigint      not null default 0,
    not_before   timestamptz,
    updated_at   timestamptz not null default now(),
    primary key (bucket, operation, window_s)
) with (fillfactor = 50);
comment on column enrichment_rate_limits.bucket is 'A credential: `hunter`, or `hunter#acme`.';
comment on column enrichment_rate_limits.calls_max is
    'Our own limit; null for a window that only the provider told us of.';
comment on column enrichment_rate_limits.calls_seen is
    'What the provider itself told us, for a day from seen_at; the lower of both counts.';
comment on column enrichment_rate_limits.ring is
    'Permits by hundredth of the window in which they end; cell n is at 1 + n modulo the length.';
comment on column enrichment_rate_limits.head is 'The last cell that has permits.';
comment on column enrichment_rate_limits.soft_us is
    'The last moment, in microseconds, that somebody was told to come back at.';

-- How many cells a ring has: a window, and how far permits may reach ahead (see below).
create function enrichment_ring_length(window_s integer) returns integer
language sql immutable parallel safe
as $$ select 104 + 2500000 / (window_s * 10000) $$;

-- Lock the windows of a question, in the order that everybody locks them in, and make those that are
-- missing. Answers those that hold it back, with the limit in force: null where nothing is counted
-- and only not_before matters.
create function enrichment_lock_windows(
    in_bucket    text,
    in_operation text,
    operations   text[],
    windows      integer[],
    calls        integer[]
) returns table (operation text, window_s integer, limit_now integer, ring integer[], head bigint,
                 soft_us bigint, not_before timestamptz)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    locked integer;
begin
    for turn in 1 .. 4 loop
        -- Counted among those that this very statement locked: a row that another process made a
        -- moment later is there, but its lock is not ours.
        with held as materialized (
            select one.operation, one.window_s
              from enrichment_rate_limits as one
             where one.bucket = in_bucket
               and one.operation in ('*', in_operation)
             order by one.operation, one.window_s
               for update
        )
        select count(ours.operation) into locked
          from held
          left join unnest(operations, windows) as ours(operation, window_s)
            on ours.operation = held.operation and ours.window_s = held.window_s;
        exit when locked >= cardinality(windows);
        if turn = 4 then
            raise exception 'the windows of % are being made by others', in_bucket
                using errcode = 'serialization_failure';
        end if;
        insert into enrichment_rate_limits as held (bucket, operation, window_s, calls_max)
        select in_bucket, ours.operation, ours.window_s, ours.calls
          from unnest(operations, windows, calls) as ours(operation, window_s, calls)
         order by ours.operation, ours.window_s
            on conflict do nothing;
    end loop;
    update enrichment_rate_limits as held
       set calls_max = ours.calls
      from unnest(operations, windows, calls) as ours(operation, window_s, calls)
     where held.bucket = in_bucket
       and held.operation = ours.operation
       and held.window_s = ours.window_s
       and held.calls_max is distinct from ours.calls;
    return query
    select held.operation, held.window_s,
           least(ours.calls,
                 case when held.seen_at > now() - interval '1 day' then held.calls_seen end),
           held.ring, held.head, held.soft_us, held.not_before
      from enrichment_rate_limits as held
      left join unnest(operations, windows, calls) as ours(operation, window_s, calls)
        on ours.operation = held.operation and ours.window_s = held.window_s
     where held.bucket = in_bucket
       and held.operation in ('*', in_operation)
     order by held.operation, held.window_s;
end
$$;

-- Hand out permits: the right to make one call from `starts` until just before `ends`, in
-- microseconds of this server's clock.
--
-- Never above a limit in any window: a permit is counted in the cell of its *end*, and a permit that
-- begins at t is given only if fewer than the limit end at t - window or later, however far ahead.
-- Take the calls of any window and the permit among them that was given last, begun at t and used at
-- u >= t: every other call was made after u - window, so its permit ended after t - window and was
-- counted. What it costs: a permit's own length and at most one cell of throughput.
--
-- Where three quarters of every window are free, a permit is a *lease* of a quarter of a second that
-- the process may spend as it likes, and it may have some to spare. Else a permit is a *moment*:
-- as long as in_slack_us says, a few of them each 10 ms, so that one event loop can keep up.
--
-- Moments reach ahead no further than a horizon: 2 s for priority 1, 0.4 s less for each below. So a
-- low priority leaves the rest of the two seconds to higher ones in other processes, whoever comes
-- first, and a higher one that has more to do than is allowed keeps a lower one out.
--
-- wanted counts the waiting by priority. unused are the ends of permits that were never used: they
-- are taken out again. Whoever gets less than wanted learns in next_us when the next permit begins;
-- if that is longer than patience_s away, soft_us and the steps after it are moments to come back
-- at, different for each who asks. And the lane is blocked, so that nobody claims jobs for nothing.
create function enrichment_take_permits(
    in_bucket    text,
    in_operation text,
    wanted       integer[],
    spare        integer,
    operations   text[],
    windows      integer[],
    calls        integer[],
    unused       bigint[]         default '{}',
    in_slack_us  integer          default 20000,
    patience_s   double precision default 5,
    at           timestamptz      default null,
    out now_us       bigint,
    out starts       bigint[],
    out ends         bigint[],
    out counts       integer[],
    out next_us      bigint,
    out soft_us      bigint,
    out soft_step_us bigint,
    out window_operations text[],
    out window_seconds    integer[],
    out window_limits     integer[],
    out window_left       integer[]
)
language plpgsql volatile
as $$
declare
    tick_us  constant bigint := 10000;
    lease_us constant bigint := 250000;
    row_of   record;
    ops      text[]    := '{}';
    lengths  bigint[]  := '{}';  -- of each window, in microseconds
    cells    bigint[]  := '{}';  -- of a cell, in microseconds
    limits   integer[] := '{}';
    sizes    integer[] := '{}';
    bases    integer[] := '{}';  -- where each window's ring begins in `flat`
    heads    bigint[]  := '{}';
    firsts   bigint[]  := '{}';  -- the first cell that counts now, and at t
    lows     bigint[]  := '{}';
    counted  integer[] := '{}';  -- what counts now, and at t
    used     integer[] := '{}';
    softs    bigint[]  := '{}';
    flat     integer[] := '{}';
    w        integer;
    n        integer   := 0;
    cell     bigint;
    slot     integer;
    total    integer;
    t        bigint;
    t_before bigint;
    binding  integer   := 0;
    lacking  integer   := 0;
    waiting  integer[] := wanted;
    class    integer;
    room     integer;
    per_tick integer   := 2147483647;
    grain_us bigint    := 0;
    slack_us bigint;
    not_before_us bigint := 0;
    blocked_us    bigint;
    is_changed    boolean := false;
begin
    starts := '{}'; ends := '{}'; counts := '{}';
    for row_of in
        select * from enrichment_lock_windows(in_bucket, in_operation, operations, windows, calls)
    loop
        -- The clock is read with the locks held: whoever came before has a smaller time.
        now_us := coalesce(now_us, (extract(epoch from coalesce(at, clock_timestamp())) * 1000000)::bigint);
        if row_of.not_before is not null then
            not_before_us := greatest(not_before_us,
                                      (extract(epoch from row_of.not_before) * 1000000)::bigint);
        end if;
        continue when row_of.limit_now is null;
        n := n + 1;
        ops[n] := row_of.operation;
        lengths[n] := row_of.window_s * 1000000::bigint;
        cells[n] := row_of.window_s * 10000::bigint;
        limits[n] := row_of.limit_now;
        sizes[n] := enrichment_ring_length(row_of.window_s);
        bases[n] := cardinality(flat);
        firsts[n] := (now_us - lengths[n]) / cells[n];
        heads[n] := row_of.head;
        softs[n] := row_of.soft_us;
        per_tick := least(per_tick, (limits[n] + 49) / 50);
        grain_us := coalesce(least(nullif(grain_us, 0), cells[n]), 0);
        total := 0;
        if cardinality(row_of.ring) <> sizes[n] or heads[n] < firsts[n] then
            flat := flat || array_fill(0, array[sizes[n]]);
            heads[n] := firsts[n];
        elsif heads[n] >= firsts[n] + sizes[n] then
            -- The clock was set back. All that is still in the ring counts as given just now.
            select sum(given) into total from unnest(row_of.ring) as given;
            flat := flat || array_fill(0, array[sizes[n]]);
            heads[n] := now_us / cells[n];
            flat[bases[n] + 1 + (heads[n] % sizes[n])::integer] := total;
            is_changed := true;
        else
            flat := flat || row_of.ring;
            cell := firsts[n];
            while cell <= heads[n] loop
                total := total + flat[bases[n] + 1 + (cell % sizes[n])::integer];
                cell := cell + 1;
            end loop;
        end if;
        counted[n] := total;
    end loop;
    now_us := coalesce(now_us, (extract(epoch from coalesce(at, clock_timestamp())) * 1000000)::bigint);
    -- Longer windows forgive more lateness: half a cell of the shortest one, up to 0.3 s.
    slack_us := greatest(in_slack_us, least(grain_us / 2, 300000));

    for one in 1 .. cardinality(unused) loop
        for w in 1 .. n loop
            cell := (unused[one] - 1) / cells[w];
            slot := bases[w] + 1 + (cell % sizes[w])::integer;
            if cell between firsts[w] and heads[w] and flat[slot] > 0 then
                flat[slot] := flat[slot] - 1;
                counted[w] := counted[w] - 1;
            end if;
        end loop;
    end loop;
    used := counted;
    lows := firsts;
    for class in 1 .. 5 loop
        lacking := lacking + waiting[class];
    end loop;

    -- Leases.
    t := greatest(now_us, not_before_us);
    room := case when t = now_us then lacking + spare else 0 end;
    for w in 1 .. n loop
        room := least(room, limits[w] * 3 / 4 - used[w]);
    end loop;
    if room > 0 then
        starts := array[t]; ends := array[t + lease_us]; counts := array[room];
        for w in 1 .. n loop
            cell := (t + lease_us - 1) / cells[w];
            while heads[w] < cell loop
                heads[w] := heads[w] + 1;
                flat[bases[w] + 1 + (heads[w] % sizes[w])::integer] := 0;
            end loop;
            slot := bases[w] + 1 + (cell % sizes[w])::integer;
            flat[slot] := flat[slot] + room;
            used[w] := used[w] + room;
            counted[w] := counted[w] + room;
        end loop;
        lacking := greatest(lacking - room, 0);
        for class in 1 .. 5 loop
            total := least(room, waiting[class]);
            waiting[class] := waiting[class] - total;
            room := room - total;
        end loop;
    end if;

    -- Moments.
    class := 1;
    loop
        loop  -- until every window has room at t
            t_before := t;
            for w in 1 .. n loop
                cell := (t - lengths[w]) / cells[w];
                while lows[w] <= heads[w] and (lows[w] < cell or used[w] >= limits[w]) loop
                    used[w] := used[w] - flat[bases[w] + 1 + (lows[w] % sizes[w])::integer];
                    lows[w] := lows[w] + 1;
                end loop;
                if lows[w] > cell and t < lows[w] * cells[w] + lengths[w] then
                    t := lows[w] * cells[w] + lengths[w];
                    binding := w;
                end if;
            end loop;
            exit when t = t_before;
        end loop;
        exit when lacking = 0;
        while waiting[class] = 0 loop
            class := class + 1;
        end loop;
        exit when t > now_us + 2400000 - 400000 * class;
        room := least(waiting[class], per_tick);
        for w in 1 .. n loop
            room := least(room, limits[w] - used[w]);
        end loop;
        starts := starts || t; ends := ends || (t + slack_us); counts := counts || room;
        for w in 1 .. n loop
            cell := (t + slack_us - 1) / cells[w];
            while heads[w] < cell loop
                heads[w] := heads[w] + 1;
                flat[bases[w] + 1 + (heads[w] % sizes[w])::integer] := 0;
            end loop;
            slot := bases[w] + 1 + (cell % sizes[w])::integer;
            flat[slot] := flat[slot] + room;
            used[w] := used[w] + room;
            counted[w] := counted[w] + room;
        end loop;
        waiting[class] := waiting[class] - room;
        lacking := lacking - room;
        t := t + tick_us;
    end loop;
    next_us := t;

    -- Too far away for those who got nothing: successive moments at the rate that lasts, over one
    -- window at most, and then from the beginning again.
    if lacking > 0 and next_us > now_us + (patience_s * 1000000)::bigint then
        soft_us := next_us;
        soft_step_us := tick_us;
        if n > 0 then
            w := greatest(binding, 1);
            soft_step_us := greatest(lengths[w] / limits[w], 1);
            if softs[w] >= next_us and softs[w] + soft_step_us <= next_us + lengths[w] then
                soft_us := softs[w] + soft_step_us;
            end if;
            update enrichment_rate_limits as held
               set soft_us = enrichment_take_permits.soft_us + soft_step_us * (greatest(lacking, 16) - 1)
             where held.bucket = in_bucket
               and held.operation = ops[w]
               and held.window_s = lengths[w] / 1000000;
        end if;
    end if;

    for w in 1 .. n loop
        update enrichment_rate_limits as held
           set ring = flat[bases[w] + 1 : bases[w] + sizes[w]], head = heads[w], updated_at = now()
         where held.bucket = in_bucket
           and held.operation = ops[w]
           and held.window_s = lengths[w] / 1000000
           and (is_changed or cardinality(counts) > 0 or cardinality(unused) > 0);
    end loop;

    -- Opened a second early: jobs need that long to be found and claimed. A limit of one operation
    -- stops the lane for 5 s at a time only, for other operations' jobs are in it as well.
    if lacking > 0 and next_us > now_us + 1500000 then
        blocked_us := next_us - 1000000;
        if binding > 0 and ops[binding] <> '*' and not_before_us < next_us then
            blocked_us := least(blocked_us, now_us + 5000000);
        end if;
        perform enrichment_block_lane(in_bucket, blocked_us, 'rate limit');
    end if;

    window_operations := ops;
    window_limits := limits;
    window_seconds := '{}';
    window_left := '{}';
    for w in 1 .. n loop
        window_seconds[w] := lengths[w] / 1000000;
        window_left[w] := greatest(limits[w] - counted[w], 0);
    end loop;
end
$$;

-- Keep claims off a lane until a moment, in microseconds; never less long than it is blocked now.
create function enrichment_block_lane(in_bucket text, until_us bigint, why text) returns void
language sql volatile
as $$
    insert into enrichment_provider_state as state (provider_id, blocked_until, reason)
    values (in_bucket, to_timestamp(until_us / 1000000.0), why)
        on conflict (provider_id) do update
       set blocked_until = excluded.blocked_until,
           reason = case when state.breaker = 'closed' then excluded.reason else state.reason end,
           updated_at = now()
     where state.blocked_until is null
        or state.blocked_until < excluded.blocked_until - interval '0.25 s'
$$;

-- Take a provider at its word: lower limits, calls that others made with the same key, a time to wait.
-- What is said of a window is kept with the operation's own row if it has one, else with the row that
-- all operations share; a window that nobody set is made for the operation.
create function enrichment_tell_limits(
    in_bucket    text,
    in_operation text,
    windows      integer[],
    calls        integer[],
    lefts        integer[],
    resets_s     double precision[],
    retry_after_s double precision,
    at           timestamptz default null
) returns void
language plpgsql volatile
as $$
declare
    time_now timestamptz;
    told     record;
    held     enrichment_rate_limits;
    now_us   bigint;
    cell_us  bigint;
    first    bigint;
    cell     bigint;
    size     integer;
    total    integer;
    paused_until timestamptz;
    shared   boolean;
begin
    perform 1
       from enrichment_rate_limits as row_of
      where row_of.bucket = in_bucket
        and row_of.operation in ('*', in_operation)
      order by row_of.operation, row_of.window_s
        for update;
    time_now := coalesce(at, clock_timestamp());
    now_us := (extract(epoch from time_now) * 1000000)::bigint;
    for told in
        select * from unnest(windows, calls, lefts, resets_s) as said(window_s, calls, "left", reset_s)
    loop
        select row_of.* into held
          from enrichment_rate_limits as row_of
         where row_of.bucket = in_bucket
           and row_of.operation in ('*', in_operation)
           and row_of.window_s = told.window_s
         order by row_of.operation = '*'
         limit 1;
        if not found then
            insert into enrichment_rate_limits as row_of (bucket, operation, window_s)
            values (in_bucket, in_operation, told.window_s)
                on conflict (bucket, operation, window_s) do update set updated_at = now()
            returning * into held;
        end if;
        cell_us := held.window_s * 10000::bigint;
        size := enrichment_ring_length(held.window_s);
        first := (now_us - held.window_s * 1000000::bigint) / cell_us;
        if cardinality(held.ring) <> size or held.head < first or held.head >= first + size then
            held.ring := array_fill(0, array[size]);
            held.head := first;
        end if;
        if told.calls is not null then
            held.calls_seen := told.calls;
            held.seen_at := time_now;
        end if;
        if told."left" is not null and least(held.calls_max, held.calls_seen) is not null then
            total := least(held.calls_max, held.calls_seen) - told."left";
            cell := first;
            while cell <= held.head loop
                total := total - held.ring[1 + (cell % size)::integer];
                cell := cell + 1;
            end loop;
            if total > 0 then
                -- They count until the provider's window ends, if it says when, else for a whole one.
                cell := now_us / cell_us;
                if told.reset_s is not null then
                    cell := greatest(least(cell, (now_us + (least(told.reset_s, held.window_s) * 1000000)::bigint
                                                  - held.window_s * 1000000::bigint) / cell_us), first);
                end if;
                while held.head < cell loop
                    held.head := held.head + 1;
                    held.ring[1 + (held.head % size)::integer] := 0;
                end loop;
                held.ring[1 + (cell % size)::integer] := held.ring[1 + (cell % size)::integer] + total;
            end if;
        end if;
        if told."left" <= 0 and told.reset_s > 0 then
            held.not_before := greatest(held.not_before, time_now + make_interval(secs => told.reset_s));
            if held.operation = '*' then
                paused_until := greatest(paused_until, held.not_before);
            end if;
        end if;
        update enrichment_rate_limits as row_of
           set ring = held.ring, head = held.head, calls_seen = held.calls_seen,
               seen_at = held.seen_at, not_before = held.not_before, updated_at = now()
         where row_of.bucket = in_bucket
           and row_of.operation = held.operation
           and row_of.window_s = held.window_s;
    end loop;
    if retry_after_s > 0 then
        -- A row that counts nothing and only says when: enough for a provider without limits.
        shared := not exists (select 1
                                from enrichment_rate_limits as row_of
                               where row_of.bucket = in_bucket
                                 and row_of.operation = in_operation);
        insert into enrichment_rate_limits as row_of (bucket, operation, window_s, not_before)
        values (in_bucket, case when shared then '*' else in_operation end, 1,
                time_now + make_interval(secs => retry_after_s))
            on conflict (bucket, operation, window_s) do update
           set not_before = greatest(row_of.not_before, excluded.not_before), updated_at = now();
        if shared then
            paused_until := greatest(paused_until, time_now + make_interval(secs => retry_after_s));
        end if;
    end if;
    if paused_until > time_now + interval '1.5 s' then
        perform enrichment_block_lane(
            in_bucket, (extract(epoch from paused_until) * 1000000)::bigint - 1000000, 'rate limit');
    end if;
end
$$;

-- Breakers count what failed lately, and may be set by hand for a time.
alter table enrichment_provider_state
    add column recent_calls    integer     not null default 0,
    add column recent_failures integer     not null default 0,
    add column recent_since    timestamptz not null default now(),
    add column hand_until      timestamptz,
    add column trouble         text        check (trouble in ('denied', 'exhausted', 'failing'));
comment on column enrichment_provider_state.failures is 'Failures in a row, all processes together.';
comment on column enrichment_provider_state.recent_calls is
    'Calls of about the last 30 s, as far as processes told: they tell nothing while all goes well.';
comment on column enrichment_provider_state.trouble is
    'Why the breaker opened by itself: the key was refused, no credits were left, or calls failed.';
comment on column enrichment_provider_state.hand_until is
    'Until when a state set by hand stays; null with is_set_by_hand is until somebody changes it.';
