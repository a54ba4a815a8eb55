# Ways to AWS that don't lead over the internet.
#
# Gateway endpoints cost nothing. Interface endpoints cost by the hour, by zone and by gigabyte: about 7.30 USD a month and zone
# (us-east-1, docs/cost.md), for each of
#   sqs          workers take jobs: needed
#   ssm          workers fetch secrets at boot, and are known to Session Manager: needed
#   ssmmessages  a shell on a worker by Session Manager: when you want one
#   logs         records of calls in CloudWatch Logs, sent by workers: with records_log
#   autoscaling  a worker that has drained is ended at once instead of when lifecycle_wait_s is over: the two minutes of Spot that this
#                saves each time pay for it from some thousands of ends a month on
# Controllers need none: they have the internet. Where there is one, they use it too, since its private name holds in the whole network.

resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(["s3", "dynamodb"])

  vpc_id            = aws_vpc.fleet.id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.public.id, aws_route_table.private.id]
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.has_workers ? setunion(["sqs", "ssm"], var.optional_endpoints) : []

  vpc_id              = aws_vpc.fleet.id
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = [for zone in slice(local.zones, 0, var.network.endpoint_zones) : aws_subnet.private[zone].id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  tags                = merge(local.tags, { Name = "${var.name}-${each.key}" })
}
