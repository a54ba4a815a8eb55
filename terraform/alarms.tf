# What a person should know of, by mail. docs/operations.md says of each what it means and what to do.

resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
  tags = local.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AlarmsOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alarms.arn
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_sns_topic_subscription" "emails" {
  for_each = toset(var.alarms.emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

locals {
  # Each by one metric, over periods of a minute unless said otherwise. `missing`: what silence means.
  alarms = merge(
    {
      backlog = {
        says       = "The oldest job has waited for too long: workers don't keep up, or there are none."
        namespace  = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", statistic = "Maximum"
        dimensions = { QueueName = aws_sqs_queue.jobs.name }
        above      = var.alarms.oldest_job_s, minutes = 5, missing = "notBreaching"
      }
      dead-letters = {
        says       = "A job ended each worker that took it, and none takes it over from the dead letter queue."
        namespace  = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum"
        dimensions = { QueueName = aws_sqs_queue.dead_letters.name }
        above      = 0, minutes = 1, missing = "notBreaching"
      }
      no-controller = {
        says       = "No instance that takes calls is in service."
        namespace  = "AWS/AutoScaling", metric = "GroupInServiceInstances", statistic = "Minimum"
        dimensions = { AutoScalingGroupName = aws_autoscaling_group.controllers.name }
        below      = 1, minutes = 3, missing = "breaching"
      }
    },
    {
      for name, table in aws_dynamodb_table.store : "throttled-writes-${name}" => {
        says       = "DynamoDB turns writes away: more than the table has seen before, or one key too hot."
        namespace  = "AWS/DynamoDB", metric = "WriteThrottleEvents", statistic = "Sum"
        dimensions = { TableName = table.name }
        above      = 0, minutes = 5, missing = "notBreaching"
      }
    },
    local.has_workers ? {
      no-signal = {
        says       = "No controller publishes how much work there is: none leads, none is ready, or none reaches CloudWatch."
        namespace  = local.metrics_namespace, metric = local.work_metric, statistic = "SampleCount"
        dimensions = {}
        below      = 1, minutes = 5, missing = "breaching"
      }
    } : {},
    var.records_log.enabled ? {
      failed-calls = {
        says       = "Many calls fail by their functions: a version that does not work, or limits too low."
        namespace  = local.metrics_namespace, metric = "FailedCalls", statistic = "Sum"
        dimensions = {}
        above      = var.alarms.failed_calls_per_5_m, minutes = 1, period = 300, missing = "notBreaching"
      }
      platform-errors = {
        says       = "The platform itself failed calls that it had accepted."
        namespace  = local.metrics_namespace, metric = "PlatformErrors", statistic = "Sum"
        dimensions = {}
        above      = 0, minutes = 1, period = 300, missing = "notBreaching"
      }
    } : {},
  )
}

resource "aws_cloudwatch_metric_alarm" "fleet" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  dimensions          = each.value.dimensions
  period              = try(each.value.period, 60)
  evaluation_periods  = each.value.minutes
  comparison_operator = try(each.value.below, null) != null ? "LessThanThreshold" : "GreaterThanThreshold"
  threshold           = try(each.value.below, null) != null ? each.value.below : each.value.above
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags
}
