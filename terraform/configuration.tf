# What a node is told: its configuration file, its environment, and where its secrets lie. Nothing of it is secret: whoever may
# describe instances reads user data.

locals {
  roles = toset(local.has_workers ? ["controller", "worker"] : ["both"])

  configuration = {
    for role in local.roles : role => templatefile("${path.module}/templates/faasd.toml.tftpl", {
      role              = role
      port              = role == "worker" ? local.worker_port : local.api_port
      https             = local.https && role != "worker"
      fleet             = role != "both"
      table_prefix      = var.name
      bucket            = aws_s3_bucket.artifacts.bucket
      queue_url         = aws_sqs_queue.jobs.url
      dead_letter_url   = aws_sqs_queue.dead_letters.url
      metrics_namespace = local.metrics_namespace
      log_group         = join("", aws_cloudwatch_log_group.records[*].name)
      elastic_ip        = role == "worker" ? "" : aws_eip.api.allocation_id
      # Its own Redis a controller finds without the address, which it can take only once it has Redis.
      redis_url = local.redis_on_controller && role != "worker" ? "redis://127.0.0.1:6379" : local.redis_url
      logs_s    = 86400 * var.retention_days
      drain_ms  = 1000 * (role == "worker" ? var.workers.drain_s : 30)
    })
  }

  # Over the file: `pool.keep_alive_s` is FAASD_POOL__KEEP_ALIVE_S.
  environment = join("", [
    for key, value in var.settings : "FAASD_${upper(replace(key, ".", "__"))}=\"${value}\"\n"
  ])

  boot = {
    for role in local.roles : role => join("", [
      "REGION=${local.region}\n",
      "SECRETS_PATH=${var.secrets_path}\n",
      "NODE_PORT=${role == "worker" ? local.worker_port : local.api_port}\n",
      local.redis_on_controller && role != "worker" ? "REDIS_HERE=yes\n" : "",
      local.https && role != "worker" ? "TLS_CERTIFICATE=${var.api.certificate_parameter}\nTLS_KEY=${var.api.key_parameter}\n" : "",
    ])
  }

  unit = {
    both       = "faasd.service"
    controller = "faasd-controller.service"
    worker     = "faasd-worker.service"
  }

  user_data = {
    # JSON is YAML.
    for role in local.roles : role => join("", ["#cloud-config\n", jsonencode({
      write_files = [
        { path = "/etc/faasd/${role == "both" ? "faasd" : role}.toml", permissions = "0644", content = local.configuration[role] },
        { path = "/etc/faasd/environment", permissions = "0644", content = local.environment },
        { path = "/etc/faasd/boot.env", permissions = "0644", content = local.boot[role] },
      ]
      runcmd = [["systemctl", "enable", "--now", local.unit[role]]]
    }), "\n"])
  }
}
