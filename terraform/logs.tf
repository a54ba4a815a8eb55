# Final records of calls, where people search them; and what the alarm on failed calls is counted by.

resource "aws_cloudwatch_log_group" "records" {
  count = var.records_log.enabled ? 1 : 0

  name              = "/${var.name}/records"
  retention_in_days = var.records_log.retention_days
  tags              = local.tags
}

locals {
  record_filters = {
    # The function failed: raised, ran out of time or memory, or was given up.
    FailedCalls = "{ $.status = \"FAILED\" || $.status = \"TIMEOUT\" || $.status = \"DEAD\" }"
    # The platform failed it.
    PlatformErrors = "{ $.errorType = \"PlatformError\" }"
  }
}

resource "aws_cloudwatch_log_metric_filter" "records" {
  for_each = var.records_log.enabled ? local.record_filters : {}

  name           = "${var.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.records[0].name
  pattern        = each.value

  metric_transformation {
    name          = each.key
    namespace     = local.metrics_namespace
    value         = "1"
    default_value = "0"
  }
}
