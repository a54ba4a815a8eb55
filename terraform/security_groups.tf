# Who may speak to whom, by group and not by address. Each rule is a resource of its own, so that the groups may name each other.

resource "aws_security_group" "controllers" {
  name        = local.controller_group
  description = "Controllers of ${var.name}: the API from outside"
  vpc_id      = aws_vpc.fleet.id
  tags        = merge(local.tags, { Name = local.controller_group })
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  for_each = toset(var.api.allowed_cidrs)

  security_group_id = aws_security_group.controllers.id
  description       = "the API"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = local.api_port
  to_port           = local.api_port
  tags              = local.tags
}

# Nodes of one fleet speak to each other: controllers to controllers where one holds what another's client waits for.
resource "aws_vpc_security_group_ingress_rule" "controller_from" {
  for_each = merge(
    { controllers = aws_security_group.controllers.id },
    { for group in aws_security_group.workers : "workers" => group.id },
  )

  security_group_id            = aws_security_group.controllers.id
  description                  = "from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.api_port
  to_port                      = local.api_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "controller_redis" {
  count = local.redis_on_controller && local.has_workers ? 1 : 0

  security_group_id            = aws_security_group.controllers.id
  description                  = "Redis from workers"
  referenced_security_group_id = aws_security_group.workers[0].id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  tags                         = local.tags
}

# AWS, and whatever the image's package updates need.
resource "aws_vpc_security_group_egress_rule" "controllers_https" {
  security_group_id = aws_security_group.controllers.id
  description       = "AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "controllers_to_api" {
  count = local.https ? 0 : 1

  security_group_id            = aws_security_group.controllers.id
  description                  = "other controllers"
  referenced_security_group_id = aws_security_group.controllers.id
  ip_protocol                  = "tcp"
  from_port                    = local.api_port
  to_port                      = local.api_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "controllers_to_workers" {
  count = local.has_workers ? 1 : 0

  security_group_id            = aws_security_group.controllers.id
  description                  = "calls to workers"
  referenced_security_group_id = aws_security_group.workers[0].id
  ip_protocol                  = "tcp"
  from_port                    = local.worker_port
  to_port                      = local.worker_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "to_redis" {
  for_each = local.elasticache ? merge(
    { controllers = aws_security_group.controllers.id },
    { for group in aws_security_group.workers : "workers" => group.id },
  ) : {}

  security_group_id            = each.value
  description                  = "Redis"
  referenced_security_group_id = aws_security_group.redis[0].id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  tags                         = local.tags
}

resource "aws_security_group" "workers" {
  count = local.has_workers ? 1 : 0

  name        = local.worker_group
  description = "Workers of ${var.name}: calls from controllers"
  vpc_id      = aws_vpc.fleet.id
  tags        = merge(local.tags, { Name = local.worker_group })
}

resource "aws_vpc_security_group_ingress_rule" "workers_from_controllers" {
  count = local.has_workers ? 1 : 0

  security_group_id            = aws_security_group.workers[0].id
  description                  = "calls from controllers"
  referenced_security_group_id = aws_security_group.controllers.id
  ip_protocol                  = "tcp"
  from_port                    = local.worker_port
  to_port                      = local.worker_port
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "workers_to_endpoints" {
  count = local.has_workers ? 1 : 0

  security_group_id            = aws_security_group.workers[0].id
  description                  = "SQS, SSM"
  referenced_security_group_id = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "workers_to_gateways" {
  for_each = local.has_workers ? aws_vpc_endpoint.gateway : {}

  security_group_id = aws_security_group.workers[0].id
  description       = each.key
  prefix_list_id    = each.value.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "workers_to_controllers" {
  for_each = local.has_workers ? merge({ api = local.api_port }, local.redis_on_controller ? { redis = 6379 } : {}) : {}

  security_group_id            = aws_security_group.workers[0].id
  description                  = "controllers: ${each.key}"
  referenced_security_group_id = aws_security_group.controllers.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  tags                         = local.tags
}

resource "aws_security_group" "endpoints" {
  count = local.has_workers ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Interface endpoints of ${var.name}"
  vpc_id      = aws_vpc.fleet.id
  tags        = merge(local.tags, { Name = "${var.name}-endpoints" })
}

resource "aws_vpc_security_group_ingress_rule" "endpoints_from" {
  for_each = merge(
    { for group in aws_security_group.workers : "workers" => group.id },
    local.has_workers ? { controllers = aws_security_group.controllers.id } : {},
  )

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = each.key
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = local.tags
}

resource "aws_security_group" "redis" {
  count = local.elasticache ? 1 : 0

  name        = "${var.name}-redis"
  description = "Redis of ${var.name}"
  vpc_id      = aws_vpc.fleet.id
  tags        = merge(local.tags, { Name = "${var.name}-redis" })
}

resource "aws_vpc_security_group_ingress_rule" "redis_from" {
  for_each = local.elasticache ? merge(
    { controllers = aws_security_group.controllers.id },
    { for group in aws_security_group.workers : "workers" => group.id },
  ) : {}

  security_group_id            = aws_security_group.redis[0].id
  description                  = each.key
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each = var.prometheus_security_group_id == null ? {} : merge(
    { controllers = { group = aws_security_group.controllers.id, port = local.api_port } },
    { for group in aws_security_group.workers : "workers" => { group = group.id, port = local.worker_port } },
  )

  security_group_id            = each.value.group
  description                  = "scrapes of Prometheus"
  referenced_security_group_id = var.prometheus_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = local.tags
}
