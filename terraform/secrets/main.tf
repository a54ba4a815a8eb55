# What nodes fetch at boot from the parameter store (/usr/lib/faasd/boot in the image). Made here and written only: no value is in the
# state, in a plan or in user data. Standard parameters cost nothing; they are encrypted with the account's own key for them.
#
# A module of its own, because `terraform test` has no mocks for ephemeral resources.

terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.88.0, < 6.0.0"
    }
  }
}

variable "name" {
  description = "The fleet's name: its secrets are /NAME/…"
  type        = string
}

variable "secrets_version" {
  description = "Raise it to have the fleet's own secret, the token for metrics and the password of Redis on the controller made anew; nodes take them at their next start. The sealing key is not touched."
  type        = number
  default     = 1
}

variable "redis_auth_token" {
  description = "Password of an ElastiCache; null: one is made, for Redis on the controller."
  type        = string
  default     = null
  sensitive   = true
}

variable "tags" {
  description = "Tags of every parameter."
  type        = map(string)
  default     = {}
}

locals {
  path      = "/${var.name}"
  tags      = merge(var.tags, { "faasd:fleet" = var.name })
  own_token = nonsensitive(var.redis_auth_token != null)
}

# 32 bytes as 64 hex digits: what functions' environments are sealed with.
ephemeral "aws_secretsmanager_random_password" "sealing_key" {
  password_length     = 64
  exclude_uppercase   = true
  exclude_punctuation = true
  exclude_characters  = "ghijklmnopqrstuvwxyz"
}

ephemeral "aws_secretsmanager_random_password" "other" {
  for_each = toset(["fleet_secret", "metrics_token", "redis_password"])

  password_length     = 64
  exclude_punctuation = true
}

# Its version stays: another key would open nothing that was sealed before. docs/operations.md tells how to change it.
resource "aws_ssm_parameter" "sealing_key" {
  name             = "${local.path}/secrets-key"
  description      = "What functions' environments are sealed with"
  type             = "SecureString"
  value_wo         = ephemeral.aws_secretsmanager_random_password.sealing_key.random_password
  value_wo_version = 1
  tags             = local.tags
}

resource "aws_ssm_parameter" "fleet_secret" {
  name             = "${local.path}/fleet-secret"
  description      = "What nodes know each other by"
  type             = "SecureString"
  value_wo         = ephemeral.aws_secretsmanager_random_password.other["fleet_secret"].random_password
  value_wo_version = var.secrets_version
  tags             = local.tags
}

resource "aws_ssm_parameter" "metrics_token" {
  name             = "${local.path}/metrics-token"
  description      = "Bearer token with which Prometheus reads /metrics"
  type             = "SecureString"
  value_wo         = ephemeral.aws_secretsmanager_random_password.other["metrics_token"].random_password
  value_wo_version = var.secrets_version
  tags             = local.tags
}

resource "aws_ssm_parameter" "redis_password" {
  name        = "${local.path}/redis-password"
  description = "Password of Redis"
  type        = "SecureString"
  value_wo    = local.own_token ? var.redis_auth_token : ephemeral.aws_secretsmanager_random_password.other["redis_password"].random_password
  # A number that is another for another password: what is written only can't be compared.
  value_wo_version = local.own_token ? parseint(substr(nonsensitive(sha256(var.redis_auth_token)), 0, 7), 16) : var.secrets_version
  tags             = local.tags
}

output "path" {
  description = "Where they lie; known when they do."
  value       = local.path

  depends_on = [aws_ssm_parameter.sealing_key, aws_ssm_parameter.fleet_secret, aws_ssm_parameter.metrics_token, aws_ssm_parameter.redis_password]
}
