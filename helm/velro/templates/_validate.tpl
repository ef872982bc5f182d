{{/* What cannot work is refused: all of it at once, each with what to do. Types, choices and bounds of single values are in
     values.schema.json, which cannot say as much. Both give a list in JSON: {"faults": [...]}. */}}

{{/* How texts are written: value, name, pattern, what to do. Values are not repeated, some are secrets. */}}
{{- define "velro.faultsOfTexts" -}}
{{- $v := .Values -}}
{{- $password := "has characters that a URL would need escaped: use letters, digits, and - _ . ~" -}}
{{- $texts := list
  (list $v.publicUrl "publicUrl" "^https?://[^\\s/?#@]+(/[^\\s?#]*[^/\\s?#])?$" "is not a base URL: write for example https://api.example.com, without a slash at the end")
  (list $v.supabaseUrl "supabaseUrl" "^https?://[^\\s?#@]+$" "is not a base URL: write for example https://REF.supabase.co")
  (list $v.tracing.endpoint "tracing.endpoint" "^https?://[^\\s?#@]+$" "is not a base URL: write for example http://collector.observability:4318; what asks for a password goes into OTEL_EXPORTER_OTLP_HEADERS in the Secret")
  (list $v.image.repository "image.repository" "^[a-z0-9._-]+(:[0-9]+/[a-z0-9._-]+)?(/[a-z0-9._-]+)*$" "is not the name of a repository: tag and digest have values of their own, image.tag and image.digest")
  (list $v.image.digest "image.digest" "^sha256:[0-9a-f]{64}$" "is not a digest: write sha256: and 64 hexadecimal digits")
  (list $v.postgresql.password "postgresql.password" "^[A-Za-z0-9_.~-]+$" $password)
  (list $v.redis.password "redis.password" "^[A-Za-z0-9_.~-]+$" $password)
-}}
{{- range $v.operatorEmails -}}
{{- $texts = append $texts (list . "operatorEmails" "^[^@\\s,]+@[^@\\s,]+$" "has something that is no e-mail address") -}}
{{- end -}}
{{- range $v.corsOrigins -}}
{{- $texts = append $texts (list . "corsOrigins" "^https?://[^\\s/?#@,*]+$" "has something that is no origin: write https://app.example.com, without a path; * is not possible together with sign-ins") -}}
{{- end -}}
{{- range $v.ingress.hosts -}}
{{- $texts = append $texts (list . "ingress.hosts" "^(\\*\\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" "has something that is no host name: write api.example.com, without https:// and path") -}}
{{- end -}}
{{- $faults := list -}}
{{- range $texts -}}
{{- if and (index . 0) (not (regexMatch (index . 2) (index . 0))) -}}
{{- $faults = append $faults (printf "%s %s" (index . 1) (index . 3)) -}}
{{- end -}}
{{- end -}}
{{- dict "faults" $faults | toJson -}}
{{- end -}}

{{/* What makes sense together. */}}
{{- define "velro.faults" -}}
{{- $v := .Values -}}
{{- $env := $v.secrets.env -}}
{{- $faults := list -}}
{{- $embedded := eq $v.mode "embedded" -}}
{{- $development := has (lower $v.environment) (list "development" "dev" "test" "testing" "local") -}}

{{- /* The database. */}}
{{- if $embedded -}}
{{- if gt (int $v.api.replicas) 1 -}}
{{- $faults = append $faults (printf "api.replicas is %d, but mode embedded is one SQLite file that one pod has for itself: set api.replicas=1, or mode=all (or split) with a PostgreSQL" (int $v.api.replicas)) -}}
{{- end -}}
{{- if $v.api.autoscaling.enabled -}}
{{- $faults = append $faults "api.autoscaling is on, but mode embedded is one pod: switch it off, or set mode=all (or split) with a PostgreSQL" -}}
{{- end -}}
{{- if or $v.postgresql.enabled $env.DATABASE_URL -}}
{{- $faults = append $faults "there is a PostgreSQL, but mode embedded keeps everything in SQLite: set mode=all or mode=split" -}}
{{- end -}}
{{- if or $v.redis.enabled $env.REDIS_URL -}}
{{- $faults = append $faults "there is a Redis, but mode embedded is one pod, which needs none: remove it, or set mode=all (or split) with a PostgreSQL" -}}
{{- end -}}
{{- else -}}
{{- if not (or $v.postgresql.enabled $v.secrets.existingSecret $env.DATABASE_URL) -}}
{{- $faults = append $faults (printf "mode %s needs a PostgreSQL: set secrets.env.DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE, or secrets.existingSecret to a Secret with that key, or for a trial postgresql.enabled=true; without any, mode=embedded" $v.mode) -}}
{{- end -}}
{{- if and $env.DATABASE_URL (not (regexMatch "^postgres(ql)?://" $env.DATABASE_URL)) -}}
{{- $faults = append $faults (printf "secrets.env.DATABASE_URL is not the URL of a PostgreSQL, which mode %s needs: write postgres://USER:PASSWORD@HOST/DATABASE" $v.mode) -}}
{{- end -}}
{{- if and $v.postgresql.enabled $env.DATABASE_URL -}}
{{- $faults = append $faults "postgresql.enabled and secrets.env.DATABASE_URL name two databases: remove one" -}}
{{- end -}}
{{- if and $v.postgresql.enabled $v.migration.existingSecret -}}
{{- $faults = append $faults "migration.existingSecret is for a database of your own: remove it, or postgresql.enabled" -}}
{{- end -}}
{{- if and $v.redis.enabled $env.REDIS_URL -}}
{{- $faults = append $faults "redis.enabled and secrets.env.REDIS_URL name two Redis: remove one" -}}
{{- end -}}
{{- end -}}
{{- range $name := list "postgresql" "redis" -}}
{{- if and (get $v $name).enabled (not (get $v $name).password) -}}
{{- $faults = append $faults (printf "%s.password is empty: choose one, for example from `openssl rand -hex 16`" $name) -}}
{{- end -}}
{{- end -}}

{{- /* Secrets. */}}
{{- if and $v.secrets.existingSecret $env -}}
{{- $faults = append $faults "secrets.existingSecret and secrets.env are both set: put everything into the existing Secret, or let the chart make one" -}}
{{- end -}}
{{- if not $v.secrets.existingSecret -}}
{{- if $env.JWT_SECRET -}}
{{- if lt (len $env.JWT_SECRET) 32 -}}
{{- $faults = append $faults (printf "secrets.env.JWT_SECRET has %d characters, 32 are needed: take one from `openssl rand -hex 32`" (len $env.JWT_SECRET)) -}}
{{- end -}}
{{- else if not (and $embedded $development) -}}
{{- $faults = append $faults (printf "JWT_SECRET is missing, which mode %s in environment %s needs: set secrets.existingSecret to a Secret with that key, or secrets.env.JWT_SECRET to 32 random characters or more (openssl rand -hex 32), and keep it: all tokens are signed with it" $v.mode $v.environment) -}}
{{- end -}}
{{- end -}}
{{- $secrets := list "JWT_SECRET" "JWT_SECRET_KEY" "DATABASE_URL" "REDIS_URL" "FAL_KEY" "STRIPE_SECRET_KEY" "STRIPE_WEBHOOK_SECRET" "STRIPE_WEBHOOK_SECRET_PREVIOUS" "SUPABASE_SERVICE_KEY" "SUPABASE_SERVICE_ROLE_KEY" "SUPABASE_JWT_SECRET" "OTEL_EXPORTER_OTLP_HEADERS" -}}
{{- $chosen := list "ENVIRONMENT" "VELRO_ROLE" "HOST" "PORT" "METRICS_PORT" "VELRO_DATA" "VELRO_PLUGIN_DIR" "VELRO_PROVIDERS" "VELRO_CONFIG" "VELRO_SHUTDOWN_DELAY_SECONDS" "VELRO_SHUTDOWN_GRACE_SECONDS" -}}
{{- range concat $v.extraEnv $v.api.extraEnv $v.worker.extraEnv -}}
{{- if and .value (has .name $secrets) -}}
{{- $faults = append $faults (printf "extraEnv shows the secret %s to whoever may read pods: put it into secrets.env or secrets.existingSecret" .name) -}}
{{- else if has .name $chosen -}}
{{- $faults = append $faults (printf "extraEnv sets %s, which the chart sets itself: use the value for it (values.yaml names each variable)" .name) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "(?m)(^|[.{,\\s])\"?(jwt_secret|database_url|redis_url|otlp_headers|key|stripe_secret_key|stripe_webhook_secret|stripe_webhook_secret_previous|service_key)\"?\\s*=\\s*[\"'][^\"']" $v.velroToml -}}
{{- $faults = append $faults "velroToml has a secret, and becomes a ConfigMap: put its variable (server/src/config/defaults.toml names it) into secrets.env or secrets.existingSecret" -}}
{{- end -}}

{{- /* Pods and their volumes. */}}
{{- $several := or (eq $v.mode "split") (gt (int $v.api.replicas) 1) $v.api.autoscaling.enabled -}}
{{- if and (not $embedded) $several -}}
{{- if not $v.persistence.enabled -}}
{{- $faults = append $faults "persistence.enabled is false, but several pods have to share the outputs: switch it on with a storageClass that gives ReadWriteMany, or name such a claim in persistence.existingClaim" -}}
{{- else if has $v.persistence.accessMode (list "ReadWriteOnce" "ReadWriteOncePod") -}}
{{- $faults = append $faults (printf "persistence.accessMode is %s, but several pods have to share the outputs: leave it empty for ReadWriteMany, or set mode=all with api.replicas=1" $v.persistence.accessMode) -}}
{{- end -}}
{{- end -}}
{{- if and $embedded (eq $v.persistence.accessMode "ReadWriteMany") -}}
{{- $faults = append $faults "persistence.accessMode is ReadWriteMany, but SQLite does not work on network file systems: leave it empty in mode embedded" -}}
{{- end -}}
{{- range $role, $settings := dict "api" $v.api "worker" $v.worker -}}
{{- with $settings.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- $faults = append $faults (printf "%s.autoscaling.minReplicas is %d, more than maxReplicas, %d" $role (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.api.autoscaling.enabled (not (dig "requests" "cpu" "" $v.api.resources)) -}}
{{- $faults = append $faults "api.autoscaling counts in percent of what is requested: set api.resources.requests.cpu" -}}
{{- end -}}
{{- if $v.worker.autoscaling.enabled -}}
{{- if ne $v.mode "split" -}}
{{- $faults = append $faults (printf "worker.autoscaling is on, but there are no worker pods in mode %s: set mode=split, or use api.autoscaling" $v.mode) -}}
{{- end -}}
{{- if and (eq $v.worker.autoscaling.engine "keda") (not $v.worker.autoscaling.keda.serverAddress) -}}
{{- $faults = append $faults "worker.autoscaling.keda.serverAddress is empty: KEDA asks Prometheus, for example http://prometheus.monitoring:9090" -}}
{{- end -}}
{{- end -}}
{{- if ge (int $v.shutdown.delaySeconds) (int $v.shutdown.graceSeconds) -}}
{{- $faults = append $faults (printf "shutdown.delaySeconds is %d, part of shutdown.graceSeconds, %d: nothing is left for what is in flight" (int $v.shutdown.delaySeconds) (int $v.shutdown.graceSeconds)) -}}
{{- end -}}

{{- /* One thing said twice, or by half. */}}
{{- if and $v.providers.registry $v.providers.existingConfigMap -}}
{{- $faults = append $faults "providers.registry and providers.existingConfigMap are both set: choose one" -}}
{{- end -}}
{{- if and $v.plugins.images $v.plugins.existingClaim -}}
{{- $faults = append $faults "plugins.images and plugins.existingClaim are both set, and both fill /plugins: choose one" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- $faults = append $faults "ingress.hosts is empty: name a host, for example ingress.hosts={api.example.com}" -}}
{{- end -}}
{{- if eq (int $v.metrics.port) 8000 -}}
{{- $faults = append $faults "metrics.port is 8000, the port of the API: metrics would be as public as the API; choose another, such as 9090" -}}
{{- end -}}
{{- dict "faults" $faults | toJson -}}
{{- end -}}
