# What a caller needs next.

output "url" {
  description = "Where the API answers. With HTTPS, let your certificate's name lead to `address`."
  value       = "${local.https ? "https" : "http"}://${aws_eip.api.public_ip}${local.https ? "" : ":8080"}"
}

output "address" {
  description = "The Elastic IP: it stays when controllers come and go."
  value       = aws_eip.api.public_ip
}

output "elastic_ip_allocation" {
  description = "Its allocation, which controllers associate with themselves."
  value       = aws_eip.api.allocation_id
}

output "bucket" {
  description = "Where artifacts are."
  value       = aws_s3_bucket.artifacts.bucket
}

output "queue_url" {
  description = "Where jobs are."
  value       = aws_sqs_queue.jobs.url
}

output "dead_letter_queue_url" {
  description = "Where jobs are that no worker survived."
  value       = aws_sqs_queue.dead_letters.url
}

output "tables" {
  description = "Names of the tables, by what is in them."
  value       = { for key, table in aws_dynamodb_table.store : key => table.name }
}

output "controller_group" {
  description = "The autoscaling group of the nodes that take calls."
  value       = aws_autoscaling_group.controllers.name
}

output "worker_group" {
  description = "The autoscaling group of workers; null without any."
  value       = one(aws_autoscaling_group.workers[*].name)
}

output "alarms_topic" {
  description = "Where alarms are told."
  value       = aws_sns_topic.alarms.arn
}

output "secrets_path" {
  description = "Where secrets lie in the parameter store."
  value       = var.secrets_path
}

output "configuration" {
  description = "The configuration file of each role."
  value       = local.configuration
}

output "shell" {
  description = "A shell on a node, without SSH: put an instance's id in."
  value       = "aws ssm start-session --region ${local.region} --target INSTANCE"
}
