# What nodes tell each other news through. Nothing in it has to outlive it: results are in the store first.

locals {
  elasticache         = var.redis.kind == "elasticache"
  redis_on_controller = var.redis.kind == "controller"

  redis_url = (
    local.elasticache ? "rediss://${aws_elasticache_replication_group.fleet[0].primary_endpoint_address}:6379" :
    # Inside the network the public name leads to the private address of whoever holds the Elastic IP.
    local.redis_on_controller ? "redis://${aws_eip.api.public_dns}:6379" :
    ""
  )
}

resource "aws_elasticache_subnet_group" "fleet" {
  count = local.elasticache ? 1 : 0

  name       = var.name
  subnet_ids = [for subnet in aws_subnet.private : subnet.id]
  tags       = local.tags
}

resource "aws_elasticache_replication_group" "fleet" {
  count = local.elasticache ? 1 : 0

  replication_group_id       = var.name
  description                = "News, claims, heartbeats and limits of ${var.name}"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = var.redis.node_type
  num_cache_clusters         = var.redis.nodes
  automatic_failover_enabled = var.redis.nodes > 1
  multi_az_enabled           = var.redis.nodes > 1 && var.network.zones > 1
  port                       = 6379
  subnet_group_name          = aws_elasticache_subnet_group.fleet[0].name
  security_group_ids         = [aws_security_group.redis[0].id]

  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  auth_token                 = var.redis_auth_token
  # The old one goes on being accepted until the next change, so that nodes can take the new one in turn.
  auth_token_update_strategy = "ROTATE"

  auto_minor_version_upgrade = true
  # There is nothing in it worth a copy.
  snapshot_retention_limit = 0
  apply_immediately        = true
  tags                     = local.tags
}
