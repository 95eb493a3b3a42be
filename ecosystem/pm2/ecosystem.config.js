// enrichd under PM2: `pm2 start ecosystem.config.js`. README.md beside this file has the rest.
// Settings stand in .env in the working directory (docs/configuration.md) or under `env` below.

module.exports = {
  apps: [
    {
      name: "enrichd",
      script: "/opt/enrichd/bin/enrichd",
      cwd: "/etc/enrichd", // where .env and enrichd.toml are read
      interpreter: "none",

      // enrichd has a supervisor of its own: one of them, and WORKER_COUNT says how many workers.
      exec_mode: "fork",
      instances: 1,

      // `pm2 start` returns once the workers can take jobs. Without PostgreSQL enrichd says after
      // 10 s that it is up and goes on trying; the embedded server may need longer to be created.
      wait_ready: true,
      listen_timeout: 60000,

      // To stop, the signal goes to the supervisor alone, which drains its children. More than
      // GRACEFUL_SHUTDOWN_TIMEOUT and the 15 s after which the supervisor itself kills.
      treekill: false,
      kill_timeout: 90000,

      // A wrong configuration (78) stays stopped. Everything else is started again, at first at
      // once, then ever more slowly.
      autorestart: true,
      stop_exit_codes: [78],
      exp_backoff_restart_delay: 100,

      // max_memory_restart would kill all workers for one; WORKER_MAX_MEMORY replaces that one.
      // Logs are on standard error, a JSON document a line.
      env: {
        LOG_FORMAT: "json",
        // DATABASE_URL_FILE: "/etc/enrichd/secrets/database_url",
        // WORKER_COUNT: "4",
      },
    },
  ],
};
